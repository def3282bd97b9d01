"""Get replies from an OpenAI-compatible server (vLLM, SGLang) that serves the verifier.

The requests are our own, and not those of the package openai: that bounds the pause between two
bytes, but neither the time nor the size of a whole answer.
"""

import asyncio
import email.utils
import os
import random
import sys
import threading
import time
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Annotated, NamedTuple, TypeVar

import httpx2
from pydantic import BaseModel, Field, ValidationError

from eagle.config import Machine, Regenerate
from eagle.errors import InputError, shortened
from eagle.replies.replies import Prompt, Reply

ATTEMPTS = 8
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds to wait after the first failed attempt, doubled after each further one, and at most."""
LARGEST_ANSWER = 2**24  # bytes; the longest reply that can be asked for has about a million
LONGEST_QUOTE = 4096  # bytes of an answer that a message may show, before it is shortened
TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
PLAIN_SAMPLING = {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""What a request does not set, vLLM and SGLang take from the model's generation_config.json."""


Count = Annotated[int, Field(strict=True, ge=0)]


class _Choice(BaseModel):
    text: str
    finish_reason: str | None


class _Usage(BaseModel):
    completion_tokens: Count


class _Completion(BaseModel):
    """What is read of the answer to /completions."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage


class _Model(BaseModel):
    id: str
    max_model_len: Annotated[Count, Field(ge=1)] | None = None


class _Models(BaseModel):
    """What is read of the answer to /models."""

    data: list[_Model]


FormT = TypeVar("FormT", bound=BaseModel)


class _Answer(NamedTuple):
    status: int
    headers: httpx2.Headers
    body: bytes

    @property
    def text(self) -> str:
        return shortened(self.body[:LONGEST_QUOTE].decode(errors="replace"))


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
            InputError: no server answers, or it does not serve exactly one model; or key or proxy
                cannot be used.
        """
        self.settings, self.url = settings, machine.completion_server.rstrip("/")
        self.requests = machine.completion_requests
        self.seconds = machine.completion_seconds
        key = os.environ.get("OPENAI_API_KEY", "")
        if not key.isascii() or not key.isprintable():
            raise InputError("OPENAI_API_KEY: holds characters that a header of HTTP cannot hold")
        try:
            self.client = httpx2.AsyncClient(
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=httpx2.Timeout(None, connect=10),  # `_exchange` has the limit of the whole
                limits=httpx2.Limits(max_connections=self.requests),
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise InputError(
                f"HTTP_PROXY, HTTPS_PROXY or ALL_PROXY: not the address of a proxy ({error}); "
                "expected one like http://localhost:3128"
            ) from None
        self.loop = asyncio.new_event_loop()  # in which all requests are, as tasks
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.stopped = threading.Event()
        self.sampling = PLAIN_SAMPLING
        answer = self._request("GET", "/models", 1, _Models)
        served = {model.id: model.max_model_len for model in answer.data}
        if len(served) != 1:
            names = shortened(", ".join(served)) or "no model"
            raise InputError(
                f"machine.completion_server = {self.url}: serves {names}; it must serve the "
                "verifier and nothing else"
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
            self.loop.call_soon_threadsafe(self._cancel_requests)
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
            answer = self._request(
                "POST", "/completions", ATTEMPTS, _Completion, content | sampling
            )
        except _BadRequest as refused:
            standard = {"top_p": sampling["top_p"]}  # the only one of OpenAI's own API
            if sampling == standard:
                raise
            answer = self._request(
                "POST", "/completions", ATTEMPTS, _Completion, content | standard
            )
            if self.sampling != standard:
                self.sampling = standard
                dropped = ", ".join(PLAIN_SAMPLING.keys() - standard)
                print(
                    f"regenerate_replies: the server does not take {dropped}, so it uses its own "
                    f"values of them ({refused})",
                    file=sys.stderr,
                )
        choice = answer.choices[0]
        tokens = answer.usage.completion_tokens
        return Reply(choice.text.strip(), tokens, choice.finish_reason == "stop")

    def _cancel_requests(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()

    async def _exchange(self, method: str, path: str, content: dict | None) -> _Answer:
        """Send a request and read the whole answer.

        Raises:
            TimeoutError: the answer is not complete within `machine.completion_seconds`.
            InputError: it is longer than LARGEST_ANSWER.
        """
        body = bytearray()
        async with (
            asyncio.timeout(self.seconds),
            self.client.stream(method, self.url + path, json=content) as response,
        ):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise InputError(
                        f"machine.completion_server = {self.url}: {path} answered more than "
                        f"{LARGEST_ANSWER:,} bytes; is it the address of an OpenAI-compatible "
                        "server?"
                    )
        return _Answer(response.status_code, response.headers, bytes(body))

    def _request(
        self, method: str, path: str, attempts: int, form: type[FormT], content: dict | None = None
    ) -> FormT:
        """Send a request, again after a transient failure, and return what the answer holds."""
        where = f"machine.completion_server = {self.url}: {path}"
        for attempt in range(attempts):
            wait = FIRST_WAIT * 2**attempt * random.uniform(0.5, 1)  # not all at the same time
            try:
                exchange = self._exchange(method, path, content)
                answer = asyncio.run_coroutine_threadsafe(exchange, self.loop).result()
                if answer.status == 200:
                    return form.model_validate_json(answer.body)
                problem = f"HTTP {answer.status}: {answer.text}"
                if answer.status not in TRANSIENT_STATUS:
                    kind = _BadRequest if answer.status in (400, 422) else InputError
                    raise kind(f"{where} was refused with {problem}{_advice(answer)}")
                wait = max(wait, _retry_after(answer))
            except TimeoutError:
                problem = f"no whole answer within {self.seconds:g} s (machine.completion_seconds)"
            except (httpx2.TransportError, httpx2.DecodingError) as error:  # refused, cut off
                problem = f"{type(error).__name__}: {error}"
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                if first["type"] != "json_invalid":
                    place = ".".join(map(str, first["loc"]))
                    raise InputError(
                        f"{where} answered {answer.text}, which is not OpenAI's form ({place}: "
                        f"{first['msg']}); is it the address of an OpenAI-compatible server?"
                    ) from None
                problem = f"an answer that is not JSON: {first['msg']}"
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


def _advice(answer: _Answer) -> str:
    """What to do about a refusal, for the end of a message."""
    if answer.status in (401, 403):
        return "; export OPENAI_API_KEY=<the server's key>"
    if answer.status == 404:
        return "; the address ends with /v1, as in http://localhost:8000/v1"
    return ""


def _retry_after(answer: _Answer) -> float:
    """Seconds in a Retry-After header, which has a number or a date; 0 without the header."""
    value = answer.headers.get("Retry-After", "")
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
