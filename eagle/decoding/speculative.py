"""Vanilla and speculative decoding of prompts.

Shapes: P prompt tokens, T rows of a tree, H hidden; batch 1.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

import torch

from eagle.decoding.compiled_layers import INDUCTOR, CompiledLayers
from eagle.decoding.graphs import Graphs
from eagle.decoding.kv_cache import Extent, capacity_for
from eagle.decoding.sampler import GREEDY, Sampler
from eagle.decoding.sessions import DraftSession, Proposal, VerifierSession
from eagle.decoding.steps import SpeculativeStep, VanillaStep
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.draft import Draft
from eagle.draft.vocabulary import Vocabulary, full_vocabulary
from eagle.errors import InputError, one_line
from eagle.verifier.configuration import context_of
from eagle.verifier.verifier import Verifier

Output = TypeVar("Output")


class Launch(NamedTuple):
    """How the kernels of a step come to a GPU. Either way every step of a kind has one shape."""

    graphs: bool = False
    """All at once: each kind of step is captured as a CUDA graph before the first text that needs
    it."""
    compiled: bool = False
    """Fewer of them: the verifier's layers are compiled, likewise before the first text."""
    how: dict = INDUCTOR
    """As of `CompiledLayers`."""


ONE_BY_ONE = Launch()


class _NotCompiled(Exception):
    """Why the verifier's layers cannot be compiled."""


@dataclass
class Generation:
    """The text that was generated for one prompt, and what it took."""

    token_ids: list[int]
    """New tokens, up to and with the stop token, at most the maximum number."""
    prefill_seconds: float
    decode_seconds: float
    verifier_steps: int
    """Verifier forwards after the prefill."""
    accepted: list[int] = field(default_factory=list)
    """Drafted tokens accepted in each verify step, counted before the text is cut at its stop token
    or its maximum length. Empty for vanilla decoding."""
    draft_seconds: float = 0.0
    """The part of decode_seconds that drafting took."""

    @property
    def seconds(self) -> float:
        return self.prefill_seconds + self.decode_seconds


class Decoders:
    """Vanilla and speculative decoding, with buffers that are kept from text to text.

    Args:
        vocabulary: the tokens that can be drafted; None: all. The verifier always decides among
            all tokens, so a smaller vocabulary can only cost acceptance, and it spares most of the
            product with the head (FR-Spec, arXiv 2502.14856).
        sampler: of verifier and draft alike.
        launch: what cannot be done of it is said in one line, and left out.
    """

    def __init__(
        self,
        verifier: Verifier,
        draft: Draft | None = None,
        vocabulary: Vocabulary | None = None,
        sampler: Sampler = GREEDY,
        launch: Launch = ONE_BY_ONE,
    ):
        self.verifier, self.draft, self.sampler = verifier, draft, sampler
        self.device = verifier.head.device
        self.vocabulary = vocabulary or full_vocabulary(verifier.head)
        self.capturing = launch.graphs
        self.compiled = CompiledLayers(verifier, launch.how) if launch.compiled else None
        self._allocate(0)

    @property
    def fixed(self) -> bool:
        """Whether every step of a kind has the same shapes. If not, a step is spared what the host
        knows to stand for nothing."""
        return self.capturing or self.compiled is not None

    @torch.inference_mode()
    def vanilla(self, prompt: list[int], maximum_new_tokens: int) -> Generation:
        """Decode with one verifier forward a token: what speculation is compared with.

        Raises:
            InputError: the prompt is empty, or prompt and new tokens do not fit the verifier's
                context.
        """
        stop = self.verifier.stop_token_ids
        longest = len(prompt) + maximum_new_tokens
        _check_context(self.verifier, prompt, maximum_new_tokens)
        self._make_room(longest)
        self._prepare_vanilla(len(prompt), longest)
        clock = _Clock(self.device)
        features = self.session.begin(torch.tensor(prompt, device=self.device))
        text = self.one_token.begin(features).tolist()
        prefill_seconds = clock.lap()
        while not _finished(text, stop, maximum_new_tokens):
            self.sampler.fill(self.one_token.uniforms)
            extent = self._extent(len(prompt) + len(text) - 1, 1)
            run = partial(self.one_token.run, extent)
            text += self._run(("vanilla", extent.fixed), run).tolist()
        self._check_finite()
        return Generation(text, prefill_seconds, clock.lap(), len(text) - 1)

    @torch.inference_mode()
    def speculate(
        self,
        prompt: list[int],
        maximum_new_tokens: int,
        shape: Tree | DynamicTree,
        watch: Callable[[Proposal, list[int]], None] | None = None,
    ) -> Generation:
        """Draft a tree of tokens, verify all of it in one forward, repeat (paper, section 3).

        Args:
            shape: of the tree. A static tree is the same in every step; its tokens are the draft's
                most likely ones at temperature 0, and drawn without replacement above. A dynamic
                tree is grown in each step; its tokens are the most likely ones at any temperature.
            watch: is called after each step with what was drafted and the step's new tokens, the
                accepted ones and the verifier's own. What it does counts as time.

        Raises:
            InputError: the prompt is empty; prompt, new tokens and one draft do not fit the
                verifier's context; the tree needs more different tokens than can be drafted.
        """
        stop = self.verifier.stop_token_ids
        longest = len(prompt) + maximum_new_tokens
        _check_context(self.verifier, prompt, maximum_new_tokens, shape.depth)
        rows = max(shape.size, DraftSession.rows(shape))
        self._make_room(longest + rows)
        step = self._step(shape)
        self._prepare_speculative(shape, len(prompt) + rows, longest + rows)
        clock = _Clock(self.device)
        drafting = _Stopwatch(self.device)
        ids = torch.tensor(prompt, device=self.device)
        features = self.session.begin(ids)  # [P, H]
        token = self.one_token.begin(features)
        text = token.tolist()
        generation = Generation(text, clock.lap(), 0.0, 0)
        count = 1
        while not _finished(text, stop, maximum_new_tokens):
            self.sampler.fill(step.uniforms)
            pairs = shape.depth + 1 if self.fixed else count
            read = len(prompt) + len(text) - 1  # by the verifier
            extent = self._extent(read, rows)
            draft = partial(step.draft, pairs, extent._replace(length=read - count))
            with drafting.running():
                if not generation.verifier_steps:
                    step.begin(features, ids, token)
                proposal = self._run(("draft", shape, extent.fixed), draft)
            verify = partial(step.verify, proposal, extent)
            for_host = self._run(("verify", shape, extent.fixed), verify)
            count, *tokens = for_host.tolist()  # the one time that the host waits
            text += tokens[:count]
            if watch is not None:
                watch(proposal, tokens[:count])
            generation.accepted.append(count - 1)
            generation.verifier_steps += 1
        self._check_finite()
        _cut(text, stop, maximum_new_tokens)
        generation.decode_seconds = clock.lap()
        generation.draft_seconds = drafting.seconds()
        return generation

    def _check_finite(self) -> None:
        try:
            self.session.check_finite()
        except InputError:
            self._allocate(0)  # NaN would reach the next text through every mask
            raise

    def _extent(self, length: int, newest: int) -> Extent:
        fixed = capacity_for(length + newest, doubling=True) if self.fixed else None
        return Extent(length, fixed)

    def _make_room(self, rows: int) -> None:
        """Make the buffers as large as a text needs; larger ones stay as they are."""
        if rows > self.session.cache.capacity:
            self._allocate(capacity_for(rows, doubling=self.fixed))

    def _allocate(self, capacity: int) -> None:
        """Replace buffers, and whatever was made for the old ones."""
        self.session = self.draft_cache = None  # frees the old ones first
        self.session = VerifierSession(self.verifier, capacity, self.compiled)
        if self.draft is not None:
            self.draft_cache = DraftSession.new_cache(self.draft, self.verifier.head, capacity)
        self.one_token = VanillaStep(self.session, self.sampler)
        self.steps: dict[Tree | DynamicTree, SpeculativeStep] = {}
        self._forget()

    def _forget(self) -> None:
        """Have all steps prepared anew."""
        self.graphs = Graphs(self.device)
        self.prepared: dict[tuple, object] = {}

    def _step(self, shape: Tree | DynamicTree) -> SpeculativeStep:
        if shape not in self.steps:
            drafting = DraftSession(
                self.draft, self.verifier, self.vocabulary, self.sampler, shape, self.draft_cache
            )
            self.steps[shape] = SpeculativeStep(self.session, drafting)
        return self.steps[shape]

    def _run(self, key: tuple, step: Callable[[], Output]) -> Output:
        """Run a step, by its graph if there is one."""
        return self.graphs.replay(key) if key in self.graphs.captured else step()

    def _prepare_vanilla(self, fewest: int, most: int) -> None:
        def prepare(extent: Extent) -> None:
            self._prepare(("vanilla", extent.fixed), partial(self.one_token.run, extent))

        self._prepare_all(prepare, fewest, most)

    def _prepare_speculative(self, shape: Tree | DynamicTree, fewest: int, most: int) -> None:
        step = self.steps[shape]

        def prepare(extent: Extent) -> None:
            draft = partial(step.draft, shape.depth + 1, extent)
            proposal = self._prepare(("draft", shape, extent.fixed), draft)
            verify = partial(step.verify, proposal, extent)
            self._prepare(("verify", shape, extent.fixed), verify)

        self._prepare_all(prepare, fewest, most)

    def _prepare_all(self, prepare: Callable[[Extent], None], fewest: int, most: int) -> None:
        """Prepare steps that need from `fewest` to `most` rows, for all extents that occur."""
        smallest, largest = (capacity_for(rows, doubling=True) for rows in (fewest, most))
        while self.fixed:
            rows = smallest
            try:
                while rows <= largest:
                    prepare(Extent(0, rows))
                    rows *= 2
                return
            except _NotCompiled as error:
                self.compiled = self.session.compiled = None
                lacking = f"be compiled ({error}); its layers run as they are"
            except RuntimeError as error:
                self.capturing = False
                lacking = (
                    f"be captured as CUDA graphs ({one_line(error)}); its kernels are launched one "
                    "by one"
                )
            self._forget()
            kind = self.verifier.config.model_type
            print(
                f"decoding: {kind} cannot {lacking}, which is slower and gives the same texts",
                flush=True,
            )

    def _prepare(self, key: tuple, step: Callable[[], Output]) -> Output:
        """Compile and capture a step once, in empty caches. Returns what it writes."""
        if key not in self.prepared:
            self._clear()
            try:
                output = step()
            except Exception as error:  # of Python, of a compiler, or of the model's own code
                if self.compiled is None:
                    raise
                raise _NotCompiled(one_line(error)) from None
            if self.capturing:
                output = self.graphs.capture(key, self._clear, step)
            self.prepared[key] = output
        return self.prepared[key]

    def _clear(self) -> None:
        self.session.cache.clear()
        if self.draft_cache is not None:
            self.draft_cache.clear()


def vanilla(
    verifier: Verifier, prompt: list[int], maximum_new_tokens: int, sampler: Sampler = GREEDY
) -> Generation:
    """`Decoders.vanilla` for one text."""
    return Decoders(verifier, sampler=sampler).vanilla(prompt, maximum_new_tokens)


def speculate(
    verifier: Verifier,
    draft: Draft,
    prompt: list[int],
    maximum_new_tokens: int,
    shape: Tree | DynamicTree,
    vocabulary: Vocabulary | None = None,
    sampler: Sampler = GREEDY,
) -> Generation:
    """`Decoders.speculate` for one text."""
    decoders = Decoders(verifier, draft, vocabulary, sampler)
    return decoders.speculate(prompt, maximum_new_tokens, shape)


def chain(
    verifier: Verifier,
    draft: Draft,
    prompt: list[int],
    maximum_new_tokens: int,
    draft_length: int,
    vocabulary: Vocabulary | None = None,
    sampler: Sampler = GREEDY,
) -> Generation:
    """`speculate` with a tree without branches, of `draft_length` tokens a step."""
    shape = Tree.chain(draft_length)
    return speculate(verifier, draft, prompt, maximum_new_tokens, shape, vocabulary, sampler)


class _Clock:
    """Measures the seconds between laps; the device's work is waited for."""

    def __init__(self, device: torch.device):
        self.device = device
        self.last = 0.0
        self.lap()

    def lap(self) -> float:
        """Seconds since the lap before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now, before = time.perf_counter(), self.last
        self.last = now
        return now - before


class _Stopwatch:
    """Sums the seconds of one part of every step, without a wait for the device."""

    def __init__(self, device: torch.device):
        self.on_device = device.type == "cuda"
        self.laps: list[tuple] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        start = self._now()
        yield
        self.laps.append((start, self._now()))

    def _now(self) -> "torch.cuda.Event | float":
        if not self.on_device:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> float:
        """The sum; of a GPU, once it is done with all laps."""
        if self.on_device:
            return sum(start.elapsed_time(end) for start, end in self.laps) / 1000
        return sum(end - start for start, end in self.laps)


def _finished(token_ids: list[int], stop_token_ids: list[int], maximum: int) -> bool:
    return len(token_ids) >= maximum or any(token in stop_token_ids for token in token_ids)


def _cut(token_ids: list[int], stop_token_ids: list[int], maximum: int) -> None:
    """Remove the accepted tokens that come after the stop token or the maximum length."""
    stops = [i for i, token in enumerate(token_ids) if token in stop_token_ids]
    del token_ids[min([maximum] + [stop + 1 for stop in stops[:1]]) :]


def _check_context(
    verifier: Verifier, prompt: list[int], maximum_new_tokens: int, depth: int = 0
) -> None:
    if not prompt:
        raise InputError("the prompt has no token; give one of a token or more")
    limit = context_of(verifier.config)
    needed = len(prompt) + maximum_new_tokens + depth
    if needed > limit:
        raise InputError(
            f"prompt ({len(prompt)} tokens) and generation need {needed} positions, the verifier "
            f"has {limit}; shorten the prompt or lower evaluate.maximum_new_tokens and "
            "evaluate.lossless_tokens"
        )
