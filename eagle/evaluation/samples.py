"""A few decodings step by step: which drafted tokens the verifier accepted and which not."""

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from eagle.config import Evaluate
from eagle.decoding.sessions import Proposal
from eagle.decoding.speculative import Decoders
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
        For each the question with its category, the text of the first token, which the prefill
        gives, and for each step the texts of the accepted tokens, of the verifier's own token and
        of the rejected ones. The accepted tokens and the verifier's own ones, in their order, are
        the text up to its stop token or maximum length.
    """
    firsts = [prompt for prompt in race.prompts if prompt.turn == 1][:SAMPLES]
    samples = []
    for question, prompt in zip(questions, firsts, strict=False):
        steps: list[Step] = []
        generation = decoders.speculate(
            prompt.token_ids,
            min(settings.maximum_new_tokens, SAMPLE_TOKENS),
            shape,
            watch=lambda proposal, new, steps=steps: steps.append(_step(proposal, new)),
        )
        progress.advance(of_sample(settings), note="samples")
        first, *written = _written(tokenizer, generation.token_ids, steps)
        samples.append(
            {
                "question": question["turns"][0],
                "category": prompt.category,
                "first": first,
                "steps": written,
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
