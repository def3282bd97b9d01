"""A few decodings step by step: which drafted tokens the verifier accepted and which not."""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from eagle.config import Evaluate
from eagle.decoding.sessions import Proposal
from eagle.decoding.speculative import Decoders, Generation
from eagle.decoding.tree import DynamicTree, Tree
from eagle.evaluation.race import Race
from eagle.evaluation.work import SAMPLE_TOKENS, SAMPLES, of_sample
from eagle.tracking import Progress


class Step(NamedTuple):
    """Tokens of one draft-and-verify step."""

    accepted: list[int]
    own: int
    """The verifier's own token after the accepted ones."""
    rejected: list[int]
    """What was drafted for the place of `own`, the likeliest first."""


class Sample(NamedTuple):
    """A decoding with the texts of its tokens."""

    generation: Generation
    first: str
    """The text of the first token, which the prefill gives."""
    steps: list[dict]
    """For each step the texts of the accepted tokens, of the verifier's own token (None behind the
    end of the text) and of the rejected ones."""


def decode_sample(
    decoders: Decoders,
    shape: Tree | DynamicTree,
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    maximum_new_tokens: int,
) -> Sample:
    """`Decoders.speculate`, which notes every step; the notes count as its time."""
    steps: list[Step] = []
    generation = decoders.speculate(
        prompt,
        maximum_new_tokens,
        shape,
        watch=lambda proposal, new: steps.append(_step(proposal, new)),
    )
    first, *written = _written(tokenizer, generation.token_ids, steps)
    return Sample(generation, first, written)


def decode_samples(
    questions: list[dict],
    race: Race,
    decoders: Decoders,
    shape: Tree | DynamicTree,
    tokenizer: PreTrainedTokenizerBase,
    settings: Evaluate,
    progress: Progress,
) -> list[dict]:
    """Decode the first turns of the first questions again, and note every step.

    They are decoded apart from the race, whose clock the notes would disturb.

    Args:
        questions: those of the race.
        decoders: with a sampler of their own, so that nothing else draws other numbers.

    Returns:
        For each the question with its category, and the texts of a `Sample`. The accepted tokens
        and the verifier's own ones, in their order, are the text up to its stop token or maximum
        length.
    """
    firsts = [prompt for prompt in race.prompts if prompt.turn == 1][:SAMPLES]
    samples = []
    for question, prompt in zip(questions, firsts, strict=False):
        tokens = min(settings.maximum_new_tokens, SAMPLE_TOKENS)
        sample = decode_sample(decoders, shape, tokenizer, prompt.token_ids, tokens)
        progress.advance(of_sample(settings), note="samples")
        samples.append(
            {
                "question": question["turns"][0],
                "category": prompt.category,
                "first": sample.first,
                "steps": sample.steps,
            }
        )
    return samples


def _step(proposal: Proposal, new: list[int]) -> Step:
    tokens, children = proposal.tokens.tolist(), proposal.tree.children.tolist()
    *accepted, own = new

    def continuations(row: int) -> list[int]:
        return [child for child in children[row] if child >= 0]

    row = 0
    for token in accepted:
        row = next(child for child in continuations(row) if tokens[child] == token)
    return Step(accepted, own, [tokens[child] for child in continuations(row)])


def _written(tokenizer: PreTrainedTokenizerBase, text: list[int], steps: list[Step]) -> list:
    """The text of the first token, then that of each step's tokens, up to the end of the text."""
    end = 1
    written: list = [_piece(tokenizer, [], text[0])]
    for accepted, _own, rejected in steps:
        before = end
        end += len(accepted) + 1
        pieces = [_piece(tokenizer, text[:i], text[i]) for i in range(before, min(end, len(text)))]
        whole = end <= len(text)
        written.append(
            {
                "accepted": pieces[: len(accepted)],
                "own": pieces[-1] if whole else None,
                "rejected": [
                    _piece(tokenizer, text[: end - 1], token) for token in rejected if whole
                ],
            }
        )
    return written


def _piece(tokenizer: PreTrainedTokenizerBase, before: list[int], token: int) -> str:
    """What a token adds to the text before it; nothing while it is part of a character."""
    text, longer = (
        tokenizer.decode(ids, clean_up_tokenization_spaces=False).rstrip("\ufffd")
        for ids in (before, [*before, token])
    )
    return longer[len(text) :]
