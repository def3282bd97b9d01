"""Get replies from an OpenAI-compatible server (vLLM, SGLang) that serves the verifier."""

import email.utils
import os
import random
import sys
import threading
import time
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import httpx2

from eagle.config import Machine, Regenerate
from eagle.errors import InputError
from eagle.replies.replies import Prompt, Reply

ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds to wait after the first failed attempt, doubled after each further one, and at most."""
TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
PLAIN_SAMPLING = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""What a request does not set, vLLM and SGLang take from the model's generation_config.json."""


class _BadRequest(InputError):
    """The server refuses the content of a request."""


class CompletionServer:
    """A backend of `eagle.replies.replies.regenerate`.

    Prompts are sent to /completions as token ids, so that they are the tokens of training and do
    not depend on the server's template and tokenizer. OPENAI_API_KEY is sent if it is set.
    """

    def __init__(self, settings: Regenerate, machine: Machine, context: int):
        """Connect to the server at `machine.completion_server`.

        Args:
            context: the verifier's context in tokens; the server's is used if it is shorter.

        Raises:
            InputError: no server answers, or it does not serve exactly one model.
        """
        self.settings, self.url = settings, machine.completion_server.rstrip("/")
        self.requests = machine.completion_requests
        key = os.environ.get("OPENAI_API_KEY")
        self.client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(machine.completion_seconds, connect=10),
            limits=httpx2.Limits(max_connections=self.requests),
        )
        self.stopped = threading.Event()
        self.sampling = PLAIN_SAMPLING
        answer = self._request("GET", "/models", attempts=1)
        with self._expect_openai_form("/models", answer):
            served = {model["id"]: model.get("max_model_len") for model in answer["data"]}
        if len(served) != 1:
            raise InputError(
                f"machine.completion_server = {self.url}: serves {', '.join(served) or 'no model'}"
                "; it must serve the verifier and nothing else"
            )
        ((self.model, longest),) = served.items()
        self.context = min(context, longest or context)

    def replies(
        self, prompts: list[Prompt], done: Container[tuple[int, int]]
    ) -> Iterator[tuple[Prompt, Reply]]:
        """As in `eagle.replies.replies.Backend`.

        Raises:
            InputError: the server refuses a request, or all attempts of a request fail.
        """
        new = [prompt for prompt in prompts if (prompt.row, prompt.turn) not in done]
        pool = ThreadPoolExecutor(self.requests)
        futures = {pool.submit(self._complete, prompt): prompt for prompt in new}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # do not wait for the other requests
            self.stopped.set()
            self.client.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _complete(self, prompt: Prompt) -> Reply:
        """Get one reply; repeat the request without PLAIN_SAMPLING if the server refuses that."""
        content = {
            "model": self.model,
            "prompt": prompt.token_ids,
            "max_tokens": prompt.maximum_new_tokens,
            "temperature": self.settings.temperature,
            "seed": prompt.seed,
        }
        sampling = self.sampling
        try:
            answer = self._request("POST", "/completions", ATTEMPTS, content | sampling)
        except _BadRequest as refused:
            standard = {"top_p": sampling["top_p"]}  # the only one of OpenAI's own API
            if sampling == standard:
                raise
            answer = self._request("POST", "/completions", ATTEMPTS, content | standard)
            if self.sampling != standard:
                self.sampling = standard
                dropped = ", ".join(PLAIN_SAMPLING.keys() - standard)
                print(
                    f"regenerate_replies: the server does not take {dropped}, so it uses its own "
                    f"values of them ({refused})",
                    file=sys.stderr,
                )
        with self._expect_openai_form("/completions", answer):
            choice = answer["choices"][0]
            tokens = answer["usage"]["completion_tokens"]
            return Reply(choice["text"].strip(), tokens, choice["finish_reason"] == "stop")

    @contextmanager
    def _expect_openai_form(self, path: str, answer: Any) -> Iterator[None]:
        """Turn the errors of reading an answer of another form into an InputError."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, TypeError):
            raise InputError(
                f"machine.completion_server = {self.url}: {path} answered {str(answer)[:300]}, "
                "which is not OpenAI's form; is it the address of an OpenAI-compatible server?"
            ) from None

    def _request(self, method: str, path: str, attempts: int, content: dict | None = None) -> dict:
        """Send a request, again after a transient failure, and return the JSON of the answer."""
        where = f"machine.completion_server = {self.url}: {path}"
        for attempt in range(attempts):
            wait = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1)  # not all at the same time
            try:
                response = self.client.request(method, self.url + path, json=content)
                if response.status_code == 200:
                    return response.json()
                problem = f"HTTP {response.status_code}: {response.text[:300]}"
                if response.status_code not in TRANSIENT_STATUS:
                    kind = _BadRequest if response.status_code in (400, 422) else InputError
                    raise kind(f"{where} was refused with {problem}{_advice(response)}")
                wait = max(wait, _retry_after(response))
            except httpx2.TransportError as error:  # refused, cut off, timed out
                problem = f"{type(error).__name__}: {error}"
            except ValueError as error:
                problem = f"an answer that is not JSON: {error}"
            except httpx2.InvalidURL as error:
                raise InputError(
                    f"machine.completion_server = {self.url}: not an address ({error}); expected "
                    "one like http://localhost:8000/v1"
                ) from None
            if attempt + 1 < attempts and self.stopped.wait(min(wait, LONGEST_WAIT)):
                break
        raise InputError(
            f"{where} failed {attempts} times, last with {problem}; is the verifier served there "
            "(`vllm serve resources/verifier --generation-config vllm`)? Run this again then: the "
            "replies so far are kept"
        )


def _advice(response: httpx2.Response) -> str:
    """What to do about a refusal, for the end of a message."""
    if response.status_code in (401, 403):
        return "; export OPENAI_API_KEY=<the server's key>"
    if response.status_code == 404:
        return "; the address ends with /v1, as in http://localhost:8000/v1"
    return ""


def _retry_after(response: httpx2.Response) -> float:
    """Seconds in a Retry-After header, which has a number or a date; 0 without the header."""
    value = response.headers.get("Retry-After", "")
    if value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return 0.0
