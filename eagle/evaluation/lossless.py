"""Proof that speculative decoding writes what the verifier alone writes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from eagle.config import Evaluate
from eagle.decoding.kv_cache import Extent
from eagle.decoding.sessions import VerifierSession
from eagle.decoding.speculative import Generation
from eagle.decoding.tree import Tree
from eagle.evaluation.race import Race
from eagle.verifier.verifier import Verifier

TIE = 1e-3
"""Two logits this close in float64 are a tie: verifying several tokens at once moves a float32
logit by up to 6e-5, so the model does not define which of the two is larger."""

CEILING_ROUNDINGS = 8
"""Roundings of the largest logit that the two ways to verify may differ by. In bfloat16, 2.6 of
them were seen in SmolLM2-135M (0.75 at logits near 37)."""


@dataclass
class TextComparison:
    """How one prompt's text differs from the reference."""

    identical: bool
    first_difference: int | None = None
    """Position of the first token that differs."""
    logit_gap: float | None = None
    """The largest logit at that position minus the smaller one of the two tokens', by one full
    forward of the judge; infinite when one text is the beginning of the other."""

    def lossless(self, tie: float = TIE) -> bool:
        """Whether the texts are identical or differ at a tie."""
        return self.identical or self.logit_gap <= tie


class Rounding(NamedTuple):
    """How much logits differ between verifying tokens at once and one by one."""

    difference: float
    """The largest difference of a logit."""
    ceiling: float
    """The most that rounding explains. A larger difference is an error in decoding, and it must
    not widen what counts as a tie."""


@dataclass
class LosslessProof:
    """Comparisons in two precisions."""

    float32: list[TextComparison]
    """A chain's texts with transformers' greedy texts; a tie is one in float64."""
    served: list[TextComparison]
    """In the precision that serves, speculative texts with vanilla's; a tie is one in float32.
    Empty at a temperature above 0, where the two have only their distribution in common."""
    rounding: Rounding
    """What verifying at once and one by one differ by in the serving precision."""

    @property
    def served_tie(self) -> float:
        return min(2 * self.rounding.difference, self.rounding.ceiling)

    @property
    def lossless(self) -> bool:
        return (
            self.rounding.difference <= self.rounding.ceiling
            and all(comparison.lossless() for comparison in self.float32)
            and all(comparison.lossless(self.served_tie) for comparison in self.served)
        )


def prove_lossless(
    settings: Evaluate,
    verifier_folder: Path,
    exact: Verifier,
    chains: list[Generation],
    race: Race,
    rounding: Rounding,
) -> LosslessProof:
    """Compare a chain's texts with transformers' texts, and the race's texts with each other.

    Args:
        exact: the verifier in float32.
        chains: greedy generations in float32 of up to settings.lossless_tokens tokens, for the
            first of the race's prompts.
        rounding: as `LosslessProof.rounding`.
    """
    prompts = [prompt.token_ids for prompt in race.prompts]
    float32 = compare_texts(
        lambda: Verifier.load(verifier_folder, torch.float64, torch.device("cpu")),
        prompts[: len(chains)],
        [generation.token_ids for generation in chains],
        reference_texts(exact, prompts[: len(chains)], settings.lossless_tokens),
    )
    served = []
    if settings.temperature == 0:
        served = compare_texts(
            lambda: exact,
            prompts,
            [generation.token_ids for generation in race.speculative],
            [generation.token_ids for generation in race.vanilla],
        )
    return LosslessProof(float32, served, rounding)


@torch.inference_mode()
def reference_texts(
    verifier: Verifier, prompts: list[list[int]], maximum_new_tokens: int
) -> list[list[int]]:
    """Greedy continuations by transformers' own `generate`, all prompts in one batch.

    It shares no code with the decoders here. Each text ends with its stop token or at the maximum
    length.
    """
    stop = verifier.stop_token_ids
    longest = max(len(prompt) for prompt in prompts)
    device = verifier.head.device
    padded = torch.tensor([[stop[0]] * (longest - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    output = verifier.model.generate(
        padded,
        attention_mask=mask,
        max_new_tokens=maximum_new_tokens,
        do_sample=False,
        pad_token_id=stop[0],
    )
    texts = []
    for row in output[:, longest:].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in stop), len(row))
        texts.append(row[:end])
    return texts


def compare_texts(
    judge: Callable[[], Verifier],
    prompts: list[list[int]],
    texts: list[list[int]],
    references: list[list[int]],
) -> list[TextComparison]:
    """Compare every text with its reference; the judge measures the first difference.

    Args:
        judge: loads the verifier in a higher precision; called only when some text differs.
    """
    comparisons = []
    verifier = None
    for prompt, text, reference in zip(prompts, texts, references, strict=True):
        if text == reference:
            comparisons.append(TextComparison(identical=True))
            continue
        shorter = min(len(text), len(reference))
        at = next((i for i in range(shorter) if text[i] != reference[i]), shorter)
        if at == shorter:  # one is the beginning of the other, which no tie explains
            comparisons.append(TextComparison(False, at, float("inf")))
            continue
        if verifier is None:
            verifier = judge()
        prefix = torch.tensor([prompt + text[:at]], device=verifier.head.device)
        features = verifier.features(prefix)[0, -1]
        logits = verifier.head @ features
        smaller = min(logits[text[at]], logits[reference[at]])
        comparisons.append(TextComparison(False, at, float(logits.max() - smaller)))
    return comparisons


def largest_rounding(verifier: Verifier, race: Race, prompts: int = 3) -> Rounding:
    """`measure_rounding` on vanilla's texts for the first prompts of a race, the largest one."""
    pairs = list(zip(race.prompts, race.vanilla, strict=True))[:prompts]
    return max(
        measure_rounding(verifier, prompt.token_ids, generation.token_ids)
        for prompt, generation in pairs
    )


@torch.inference_mode()
def measure_rounding(verifier: Verifier, prompt: list[int], text: list[int]) -> Rounding:
    """Verify `text` at once and token by token.

    Raises:
        InputError: logits are not finite.
    """
    device, capacity = verifier.head.device, len(prompt) + len(text)
    at_once, one_by_one = (VerifierSession(verifier, capacity) for _ in range(2))
    for session in (at_once, one_by_one):
        session.begin(torch.tensor(prompt, device=device))
    tokens = torch.tensor(text, device=device)
    chain, root = (Tree.chain(length).tensors(device) for length in (len(text) - 1, 0))
    together = at_once.logits(at_once.step(tokens, chain, Extent(len(prompt))))
    rows = []
    for position, token in enumerate(tokens[:, None], start=len(prompt)):
        rows.append(one_by_one.logits(one_by_one.step(token, root, Extent(position))))
        one_by_one.keep(None, 1)
    single = torch.cat(rows)
    at_once.check_finite()
    one_by_one.check_finite()
    largest = float(single.abs().max())
    ceiling = max(TIE, CEILING_ROUNDINGS * torch.finfo(single.dtype).eps * largest)
    return Rounding(float((together.double() - single.double()).abs().max()), ceiling)
