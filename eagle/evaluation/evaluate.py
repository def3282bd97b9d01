"""Measuring a draft: agreement on held-out text, acceptance, speed and losslessness."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from eagle.config import Evaluate
from eagle.decoding.acceptance import Sampling
from eagle.decoding.speculative import Generation, Sampler, chain, speculate, vanilla
from eagle.decoding.tree import DynamicTree, Tree
from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, attend_within_documents, check_fit
from eagle.draft.onednn_weights import pack, packed
from eagle.draft.vocabulary import Vocabulary, full_vocabulary, part_of_vocabulary
from eagle.errors import InputError
from eagle.evaluation.forecast import Forecast, forecast_on
from eagle.evaluation.lossless import TIE, Comparison, compare, reference_texts, rounding_difference
from eagle.evaluation.metrics import (
    acceptance_length,
    acceptance_rates,
    bootstrap_interval,
    calls_per_token,
    draft_share,
    other_acceptance_lengths,
    speedup,
    step_cost,
    tokens_per_second,
)
from eagle.questions import read_bench
from eagle.system_prompts import system_turn
from eagle.template.template import encode_prompt
from eagle.tokens.token_set import TokenSet
from eagle.tracking import Progress
from eagle.training.features import compute_features
from eagle.verifier.verifier import Verifier

RATE_POSITIONS = 5
"""Acceptance rates are those of a chain of five, as in the paper: alpha_0 … alpha_4."""


@dataclass
class Prompt:
    question_id: int | str
    category: str
    turn: int
    token_ids: list[int]


@dataclass
class Evaluation:
    metrics: dict
    """The contracted keys, one value each."""
    details: dict
    """Intervals, other definitions, ties."""
    per_prompt: pd.DataFrame


def evaluate(
    settings: Evaluate,
    verifier_folder: Path,
    draft_folder: Path,
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    trained_on: TokenSet,
    held_out: TokenSet,
    progress_seconds: float,
) -> Evaluation:
    """Measure a draft in the official layout.

    Args:
        trained_on: says which tokens are frequent, for `settings.draft_vocabulary`.
        held_out: agreement is measured on these conversations, and a decoder chosen on replies to
            them, so that the bench has no say in it.

    Speed, tau and agreement in `settings.dtype`, vanilla and the draft's decoder in turn on each
    prompt; acceptance rates in float32, by a chain. Losslessness in both: in float32 a first
    difference must be a tie in float64; in `settings.dtype` a near-tie in float32, within twice
    the largest difference that this run measures between verifying the same tokens at once and
    one by one.

    Raises:
        InputError: bench, draft or decoder cannot be used.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    questions = read_bench(settings.bench, settings.questions)
    given = given_shape(settings)
    draft = load_draft(draft_folder).to(device)
    verifier = Verifier.load(verifier_folder, getattr(torch, settings.dtype), device)
    check_fit(draft.config, verifier.config, str(draft_folder))
    pack(verifier.model, keep=verifier.model.get_output_embeddings())
    fast_draft = draft.cast(verifier.head.dtype)
    pack(fast_draft)
    vocabulary = _drafted_from(settings, trained_on, verifier)
    choice = Sampler()
    if settings.temperature > 0:
        sampling = Sampling(settings.temperature, settings.top_p, settings.top_k)
        choice = Sampler(sampling, torch.Generator().manual_seed(settings.seed))
    turns = sum(len(question["turns"]) for question in questions)
    total = turns + min(turns, settings.lossless_prompts) + len(held_out) + (given is None)
    with Progress("evaluate", total, "prompts", progress_seconds) as progress:
        forecasts = []
        if given is None:
            chains = settings.decoder == "chain"
            forecasts = forecast_on(held_out, verifier, fast_draft, vocabulary, chains)
            progress.advance(note="choice of a decoder")
        shape = forecasts[0].shape if given is None else given
        prompts, plain, fast = _race(
            questions, verifier, fast_draft, vocabulary, shape, choice, template, tokenizer,
            settings, system_turn(settings.system_prompt), progress,
        )  # fmt: skip
        rounding = max(
            rounding_difference(verifier, prompt.token_ids, generation.token_ids)
            for prompt, generation in list(zip(prompts, plain, strict=True))[:3]
        )
        top1 = _top1_agreement(held_out, verifier, fast_draft, progress)
        del verifier
        exact = Verifier.load(verifier_folder, torch.float32, device)
        draft = load_draft(draft_folder).to(device)
        proven = [prompt.token_ids for prompt in prompts[: settings.lossless_prompts]]
        vocabulary = _drafted_from(settings, trained_on, exact)
        length = settings.lossless_tokens
        greedy = []
        for prompt in proven:
            greedy.append(chain(exact, draft, prompt, length, RATE_POSITIONS, vocabulary))
            progress.advance(note="losslessness")
        rated = greedy
        if settings.temperature > 0:
            rated = [
                chain(exact, draft, prompt, length, RATE_POSITIONS, vocabulary, choice)
                for prompt in proven
            ]
        references = reference_texts(exact, proven, settings.lossless_tokens)
        comparisons = compare(
            lambda: Verifier.load(verifier_folder, torch.float64, torch.device("cpu")),
            proven,
            [text.token_ids for text in greedy],
            references,
        )
        served = []  # drawn texts have a distribution in common, no words
        if settings.temperature == 0:
            served = compare(
                lambda: exact,
                [prompt.token_ids for prompt in prompts],
                [text.token_ids for text in fast],
                [text.token_ids for text in plain],
            )
    for texts in (fast, rated):
        if not any(generation.accepted for generation in texts):
            raise InputError(
                f"{settings.bench}: the verifier ended every reply to the first {len(texts)} "
                "prompts with its first token, so nothing was drafted; check the prompts and the "
                "chat template, or raise evaluate.questions and evaluate.lossless_prompts"
            )
    rates = acceptance_rates(rated, RATE_POSITIONS)
    spoken = [generation for generation in fast if generation.accepted]
    return Evaluation(
        metrics={
            "tau": round(acceptance_length(fast), 4),
            **{
                f"alpha_{n}": None if rate is None else round(rate, 4)
                for n, rate in enumerate(rates)
            },
            "top1_agreement": round(top1, 4),
            "speedup": round(speedup(fast, plain), 4),
            "tokens_per_second": round(tokens_per_second(fast), 2),
            "lossless": all(comparison.lossless() for comparison in comparisons)
            and all(comparison.lossless(2 * rounding) for comparison in served),
        },
        details={
            "decoder": describe(settings, shape),
            "draft_vocabulary": settings.draft_vocabulary,
            "temperature": settings.temperature,
            "tau_95": bootstrap_interval(acceptance_length, spoken, seed=settings.seed),
            "other_tau": other_acceptance_lengths(fast),
            "acceptance_by_depth": acceptance_rates(fast, shape.depth),
            "alpha_95": bootstrap_interval(
                lambda generations: acceptance_rates(generations, RATE_POSITIONS),
                [generation for generation in rated if generation.accepted],
                seed=settings.seed,
            ),
            "alpha_steps": sum(len(generation.accepted) for generation in rated),
            "alpha_tau": acceptance_length(rated),
            "speedup_95": bootstrap_interval(speedup, fast, plain, seed=settings.seed),
            "speedup_without_prefill": speedup(fast, plain, prefill=False),
            "break_even_tau": step_cost(fast, plain),
            "vanilla_tokens_per_second": tokens_per_second(plain),
            "verifier_calls_per_token": calls_per_token(fast),
            "draft_share": draft_share(fast),
            "forecasts": [_forecast_row(forecast) for forecast in forecasts],
            "measured_over_forecast": speedup(fast, plain, prefill=False) / forecasts[0].speedup
            if forecasts
            else None,
            "by_category": _by(lambda prompt: prompt.category, prompts, plain, fast, settings.seed),
            "by_turn": _by(
                lambda prompt: f"turn {prompt.turn}", prompts, plain, fast, settings.seed
            ),
            "lossless": _proof(comparisons, TIE) | {"tokens_each": settings.lossless_tokens},
            f"lossless_{settings.dtype}": _proof(served, 2 * rounding)
            | {"rounding_difference": rounding},
        },
        per_prompt=_table(prompts, plain, fast),
    )


def given_shape(settings: Evaluate) -> Tree | DynamicTree | None:
    """What the decoder drafts in each step; None: to be chosen by forecast.

    Raises:
        InputError: static_tree is no tree.
    """
    if settings.decoder == "dynamic_tree":
        return DynamicTree(settings.tree_tokens, settings.tree_depth, settings.tree_top_k)
    given = settings.draft_length if settings.decoder == "chain" else settings.static_tree
    if given == "auto":
        return None
    if settings.decoder == "chain":
        return Tree.chain(given)
    return Tree.named(given) if isinstance(given, str) else Tree.from_paths(given)


def describe(settings: Evaluate, shape: Tree | DynamicTree) -> dict:
    """The decoder as it was measured, `name` in words."""
    if isinstance(shape, DynamicTree):
        name = f"a tree of {shape.tokens - 1} tokens grown in each step"
        return {"kind": settings.decoder, "name": name, **shape._asdict()}
    if settings.decoder == "chain":
        name = f"a chain of {shape.depth}"
        return {"kind": settings.decoder, "name": name, "draft_length": shape.depth}
    return {
        "kind": settings.decoder,
        "name": f"a static tree of {len(shape) - 1} tokens, {shape.depth} deep",
        "tokens": len(shape),
        "depth": shape.depth,
        "paths": [list(path) for path in shape.paths],
    }


def _forecast_row(forecast: Forecast) -> dict:
    return {
        "decoder": forecast.name,
        "tau": forecast.tau,
        "break_even_tau": forecast.step_cost,
        "speedup_without_prefill": forecast.speedup,
    }


def _by(
    key: Callable[[Prompt], str],
    prompts: list[Prompt],
    plain: list[Generation],
    fast: list[Generation],
    seed: int,
) -> dict[str, dict]:
    """tau and speed-up of groups of prompts, with their intervals."""
    groups: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        if fast[number].accepted:
            groups.setdefault(key(prompt), []).append(number)
    table = {}
    for group, numbers in groups.items():
        ours, alone = ([sample[i] for i in numbers] for sample in (fast, plain))
        table[group] = {
            "prompts": len(numbers),
            "tau": acceptance_length(ours),
            "tau_95": bootstrap_interval(acceptance_length, ours, seed=seed),
            "speedup": speedup(ours, alone),
            "speedup_95": bootstrap_interval(speedup, ours, alone, seed=seed),
        }
    return table


def _drafted_from(settings: Evaluate, trained_on: TokenSet, verifier: Verifier) -> Vocabulary:
    """The tokens that the training data says most, or all."""
    vocabulary = full_vocabulary(verifier.head)
    if settings.draft_vocabulary is not None:
        by_frequency = trained_on.by_frequency(len(verifier.head)).to(verifier.head.device)
        vocabulary = part_of_vocabulary(verifier.head, by_frequency[: settings.draft_vocabulary])
    return vocabulary._replace(head=packed(vocabulary.head))


def _race(
    questions: list[dict],
    verifier: Verifier,
    draft: Draft,
    vocabulary: Vocabulary,
    shape: Tree | DynamicTree,
    choice: Sampler,
    template: str,
    tokenizer: PreTrainedTokenizerBase,
    settings: Evaluate,
    opening: list[dict],
    progress: Progress,
) -> tuple[list[Prompt], list[Generation], list[Generation]]:
    """Vanilla and the draft's decoder in turn on every turn of every question, each begun with
    `opening`; later turns follow vanilla's earlier replies."""
    length = settings.maximum_new_tokens
    prompts: list[Prompt] = []
    plain: list[Generation] = []
    fast: list[Generation] = []
    for question in questions:
        messages = list(opening)
        for turn, text in enumerate(question["turns"], start=1):
            messages.append({"role": "user", "content": text})
            ids = encode_prompt(tokenizer, template, messages)
            if not prompts:  # the first calls of both also pay for allocation and warm caches
                vanilla(verifier, ids, 4)
                speculate(verifier, draft, ids, 4, shape, vocabulary)
            prompts.append(Prompt(question["question_id"], question["category"], turn, ids))
            plain.append(vanilla(verifier, ids, length, choice))
            fast.append(speculate(verifier, draft, ids, length, shape, vocabulary, choice))
            reply = tokenizer.decode(plain[-1].token_ids, skip_special_tokens=True)
            messages.append({"role": "assistant", "content": reply})
            progress.advance(note="speed")
    return prompts, plain, fast


@torch.inference_mode()
def _top1_agreement(
    held_out: TokenSet, verifier: Verifier, draft: Draft, progress: Progress
) -> float:
    """Share of decoding-aligned positions of held-out text where head(draft) and head(f_{t+1})
    have the same most likely token."""
    agreed = counted_positions = 0
    for document in range(len(held_out)):
        counted = held_out.counted(document, "decoding", verifier.stop_token_ids)
        next_tokens = held_out.token_ids[held_out.span(document)][1:].long()
        features = compute_features(held_out, verifier, [document])
        pairs = len(next_tokens)
        predicted = draft(
            features[:-1],
            verifier.embedding[next_tokens.to(features.device)],
            torch.arange(pairs, device=features.device),
            attend_within_documents([pairs], "sdpa"),
        )
        ours, theirs = (
            (states[counted.to(features.device)] @ verifier.head.T).argmax(-1)
            for states in (predicted, features[1:])
        )
        agreed += int((ours == theirs).sum())
        counted_positions += int(counted.sum())
        progress.advance(note="agreement")
    return agreed / counted_positions


def _proof(comparisons: list[Comparison], tie: float) -> dict:
    differing = [comparison for comparison in comparisons if not comparison.identical]
    return {
        "prompts": len(comparisons),
        "identical": len(comparisons) - len(differing),
        "ties": sum(comparison.lossless(tie) for comparison in differing),
        "tie_is_within": tie,
        "differences": [
            {"position": comparison.first_difference, "logit_gap": comparison.logit_gap}
            for comparison in differing
        ],
    }


def _table(prompts: list[Prompt], plain: list[Generation], fast: list[Generation]) -> pd.DataFrame:
    rows = [
        {
            "question_id": prompt.question_id,
            "category": prompt.category,
            "turn": prompt.turn,
            "prompt_tokens": len(prompt.token_ids),
            "new_tokens": len(speculative.token_ids),
            "verify_steps": speculative.verifier_steps,
            "tau": acceptance_length([speculative]) if speculative.accepted else None,
            "vanilla_tokens_per_second": tokens_per_second([alone]),
            "tokens_per_second": tokens_per_second([speculative]),
        }
        for prompt, alone, speculative in zip(prompts, plain, fast, strict=True)
    ]
    return pd.DataFrame(rows).round(3)
