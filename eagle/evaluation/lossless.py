"""Proof that speculative decoding wrote what the verifier alone would have written."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from eagle.decoding.speculative import VerifierSession
from eagle.verifier.verifier import Verifier

TIE = 1e-3
"""Two logits this close in float64 are a tie: verifying several tokens at once moves a float32
logit by up to 6e-5, so which of them is larger is not defined by the model."""


@dataclass
class Comparison:
    """One prompt's text against the reference."""

    identical: bool
    first_difference: int | None = None
    """Position of the first token that differs."""
    logit_gap: float | None = None
    """How far the lower candidate's logit lies below the largest there, in one full forward of
    the judge; infinite when one text is the other's beginning."""

    def lossless(self, tie: float = TIE) -> bool:
        return self.identical or self.logit_gap <= tie


@torch.inference_mode()
def reference_texts(
    verifier: Verifier, prompts: list[list[int]], maximum_new_tokens: int
) -> list[list[int]]:
    """Greedy continuations by transformers' own `generate`, all prompts side by side.

    An implementation that shares nothing with ours; each ends with its stop token or at the
    length.
    """
    stop = verifier.stop_token_ids
    longest = max(len(prompt) for prompt in prompts)
    device = verifier.head.device
    padded = torch.tensor([[stop[0]] * (longest - len(p)) + p for p in prompts], device=device)
    seen = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    output = verifier.model.generate(
        padded,
        attention_mask=seen,
        max_new_tokens=maximum_new_tokens,
        do_sample=False,
        pad_token_id=stop[0],
    )
    texts = []
    for row in output[:, longest:].tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in stop), len(row))
        texts.append(row[:end])
    return texts


def compare(
    judge: Callable[[], Verifier],
    prompts: list[list[int]],
    texts: list[list[int]],
    references: list[list[int]],
) -> list[Comparison]:
    """Hold every text against its reference; the judge decides a first difference.

    Args:
        judge: gives the verifier in a higher precision; called only when some text differs.
    """
    comparisons = []
    exact = None
    for prompt, text, reference in zip(prompts, texts, references, strict=True):
        if text == reference:
            comparisons.append(Comparison(identical=True))
            continue
        at = next(
            (i for i, (a, b) in enumerate(zip(text, reference, strict=False)) if a != b),
            min(len(text), len(reference)),
        )
        if at == min(len(text), len(reference)):  # one is the other's beginning: no tie does that
            comparisons.append(Comparison(False, at, float("inf")))
            continue
        if exact is None:
            exact = judge()
        prefix = torch.tensor([prompt + text[:at]], device=exact.head.device)
        features = exact.features(prefix)[0, -1]
        logits = exact.head @ features
        least = min(logits[text[at]], logits[reference[at]])
        comparisons.append(Comparison(False, at, float(logits.max() - least)))
    return comparisons


@torch.inference_mode()
def rounding_difference(verifier: Verifier, prompt: list[int], text: list[int]) -> float:
    """Largest difference of a logit between verifying `text` at once and token by token."""
    capacity = len(prompt) + len(text)
    at_once, one_by_one = (VerifierSession(verifier, capacity) for _ in range(2))
    at_once.step(prompt)
    one_by_one.step(prompt)
    together = at_once.logits(at_once.step(text))
    single = torch.cat([one_by_one.logits(one_by_one.step([token])) for token in text])
    return float((together.float() - single.float()).abs().max())
