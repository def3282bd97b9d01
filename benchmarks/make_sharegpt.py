"""A file of ShareGPT's size and shape, from a seed: what prepare and tokenise are measured on.

    python -m benchmarks.make_sharegpt /tmp/sharegpt.json

94,000 conversations and about 640 MB of JSON, as ShareGPT_V4.3_unfiltered_cleaned_split.json has.
Sentences are the shipped sample's, so that words and tokens are English ones. Lengths: prompts
of 161 and replies of 338 tokens on average (ShareGPT in the vLLM paper, arXiv 2309.06180, figure
11), drawn log-normally (an assumption: the paper shows long tails, not their form), 2.9 exchanges
a conversation (what 640 MB leave of that). What must be found stands in known shares beside them.
"""

import argparse
import json
import random
import re
from pathlib import Path

from eagle.files import read_json, read_json_lines, whole_file

CHARACTERS_A_TOKEN = 4.2  # the embedded verifier's tokenizer on the sample
PROMPT_TOKENS, REPLY_TOKENS, EXCHANGES = 161, 338, 2.9
SPREAD = 1.1  # sigma of the log-normal lengths
# share of the conversations that are so
LEADING_REPLY, TWICE_IN_A_ROW, EMPTY = 0.05, 0.01, 0.01
DUPLICATE, NEAR_DUPLICATE, LEAK = 0.01, 0.02, 0.002
OTHER_SCRIPTS = [
    "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "人工知能は人間の言葉を理解しようとします。",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "कृपया इस वाक्य का अनुवाद करें।",
    "Merci beaucoup, c'était très utile 🙂.",
]


def sentences() -> list[str]:
    """The shipped sample's sentences, and one in other scripts for every thirty of them."""
    texts = [
        turn["value"]
        for file in sorted(Path("resources/conversations").glob("*/*.json"))
        for row in read_json(file)
        for turn in row["conversations"]
    ]
    found = [s for text in texts for s in re.split(r"(?<=[.!?])\s+|\n", text) if len(s) > 20]
    return found + OTHER_SCRIPTS * (len(found) // (30 * len(OTHER_SCRIPTS)))


def write(path: Path, conversations: int, seed: int) -> None:
    generator = random.Random(seed)
    pool = sentences()
    prompts = [
        question["turns"][0]
        for file in sorted(Path("resources/bench").glob("*.jsonl"))
        for question in read_json_lines(file)
    ]

    def text(tokens: int) -> str:
        # the mean of a log-normal is exp(mu + sigma^2 / 2)
        length = tokens * CHARACTERS_A_TOKEN * generator.lognormvariate(-(SPREAD**2) / 2, SPREAD)
        parts, size = [], 0
        while size < length:
            parts.append(generator.choice(pool))
            size += len(parts[-1]) + 1
        return " ".join(parts)[: max(12, int(length))]

    def turns() -> list[dict]:
        made = []
        while not made or generator.random() < 1 - 1 / EXCHANGES:
            made.append({"from": "human", "value": text(PROMPT_TOKENS)})
            made.append({"from": "gpt", "value": text(REPLY_TOKENS)})
        return made

    def spoiled(made: list[dict]) -> list[dict]:
        if generator.random() < LEADING_REPLY:
            made.insert(0, {"from": "gpt", "value": text(REPLY_TOKENS)})
        if generator.random() < TWICE_IN_A_ROW:
            made.insert(1, {"from": "human", "value": text(PROMPT_TOKENS)})
        if generator.random() < EMPTY:
            made[-1]["value"] = " "
        if generator.random() < LEAK:
            made[0]["value"] = f"Please answer: {generator.choice(prompts)} Thank you."
        return made

    earlier: list[list[dict]] = []
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        for number in range(conversations):
            chance = generator.random()
            if earlier and chance < DUPLICATE:
                made = generator.choice(earlier)
            elif earlier and chance < DUPLICATE + NEAR_DUPLICATE:
                *first, last = generator.choice(earlier)
                made = [*first, {**last, "value": last["value"] + " " + generator.choice(pool)}]
            else:
                made = spoiled(turns())
                if len(earlier) < 1000:
                    earlier.append(made)
            row = json.dumps({"id": f"c{number}_0", "conversations": made}, indent=2)
            file.write(("," if number else "[") + "\n" + row)
        file.write("\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--conversations", type=int, default=94_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(arguments.path, arguments.conversations, arguments.seed)
    print(f"wrote {arguments.path}, {arguments.path.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
