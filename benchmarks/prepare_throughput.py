"""Preparing and tokenising ShareGPT: the plain way against ours, on the same file, in one run.

    pip install --no-deps datasets==5.2.0 multiprocess==0.70.19 dill==0.4.1 xxhash==4.1.0
    python -m benchmarks.make_sharegpt /tmp/sharegpt.json
    python -m benchmarks.prepare_throughput /tmp/sharegpt.json      # after `make repro`

`datasets` serves this comparison only and is in no requirements file. The plain way of preparing
is datasets.load_dataset("json") and a Python map in one process, with the rules that ours applies
by default (but for lone surrogates, which its reader hides); both must keep the same conversations.
The plain way of tokenising is apply_chat_template a row; both must give the same file. Every job is
a process of its own; its memory is that of all its processes together, resident pages summed every
50 ms. Results go to benchmarks/results/ with hardware, versions and commit.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from eagle.config import ROLES, load_params
from eagle.files import read_json_lines, sha256_of_file, write_json

RESULTS = Path("benchmarks/results")
BENCH = Path("resources/bench")
VERIFIER = Path("resources/verifier")
TEMPLATE = Path("results/template/chat_template.jinja")
LENGTH = 2048
LEAK_WORDS = 8


def plain_prepare(source: Path, target: Path) -> None:
    import datasets

    def words_of(text: str) -> list[str]:
        return re.sub(r"[^0-9a-z\u0080-\U0010ffff]+", " ", text.lower()).split()

    def grams(words: list[str]) -> set[tuple[str, ...]]:
        starts = range(len(words) - LEAK_WORDS + 1)
        return {tuple(words[start : start + LEAK_WORDS]) for start in starts}

    long_prompts, short_prompts = set(), set()
    for file in BENCH.glob("*.jsonl"):
        for question in read_json_lines(file):
            for number, turn in enumerate(question["turns"]):
                words = words_of(turn)
                if len(words) >= LEAK_WORDS:
                    long_prompts |= grams(words)
                elif number == 0:
                    short_prompts.add(tuple(words))
    seen = set()

    def judge(row: dict) -> dict:
        turns = [
            {"role": ROLES[turn["from"].lower()], "content": turn["value"]}
            for turn in row["conversations"]
        ]
        system = [turn for turn in turns if turn["role"] == "system"]
        spoken = [turn for turn in turns if turn["role"] != "system"]
        if spoken and spoken[0]["role"] == "assistant":
            spoken = spoken[1:]
        if len(system) > 1 or turns[: len(system)] != system:
            return {"messages": [], "kept": False}
        for number, turn in enumerate(spoken):
            if turn["role"] != ("user", "assistant")[number % 2]:
                return {"messages": [], "kept": False}
        if len(spoken) % 2:
            spoken = spoken[:-1]
        for turn in spoken:
            if not turn["content"].strip():
                return {"messages": [], "kept": False}
        for turn in spoken:
            words = words_of(turn["content"])
            if tuple(words) in short_prompts or not grams(words).isdisjoint(long_prompts):
                return {"messages": [], "kept": False}
        messages = system + spoken
        text = json.dumps(messages)
        if not spoken or text in seen:
            return {"messages": [], "kept": False}
        seen.add(text)
        return {"messages": messages, "kept": True}

    with tempfile.TemporaryDirectory(dir=target.parent) as cache:
        rows = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=cache)
        judged = rows.map(judge, remove_columns=["conversations"])
        kept = judged.filter(lambda row: row["kept"]).remove_columns("kept").shuffle(seed=0)
        kept.to_json(target, force_ascii=False)


def our_prepare(source: Path, target: Path, similarity: float | None, processes: int) -> None:
    from eagle.sharegpt.prepare import prepare

    rules = load_params().sharegpt.model_copy(
        update={
            "bench": str(BENCH),
            "leak_words": LEAK_WORDS,
            "near_duplicate_similarity": similarity,
            "n": None,
            "frac": 1.0,
        }
    )
    prepared = prepare(str(source), None, rules, target.parent, processes)
    prepared.usable.write(target, prepared.selected)


def plain_tokenize(source: Path, target: Path) -> None:
    import torch

    from eagle.template.template import load_template
    from eagle.tokens.token_set import TokenSet
    from eagle.tokens.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(str(TEMPLATE), tokenizer)
    token_ids, masks, bounds = [], [], [0]
    for row in read_json_lines(source):
        encoded = tokenizer.apply_chat_template(
            row["messages"],
            chat_template=template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        mask = encoded["assistant_masks"][:LENGTH]
        if any(mask[1:]):
            token_ids += encoded["input_ids"][:LENGTH]
            masks += mask
            bounds.append(len(token_ids))
    TokenSet(
        torch.tensor(token_ids, dtype=torch.int32),
        torch.tensor(masks, dtype=torch.uint8),
        torch.tensor(bounds),
    ).save(target)


def our_tokenize(source: Path, target: Path, processes: int) -> None:
    from eagle.template.template import load_template
    from eagle.tokens.tokenization import tokenize_file
    from eagle.tokens.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(str(TEMPLATE), tokenizer)
    tokenize_file(source, target, tokenizer, template, LENGTH, processes, progress_seconds=10)


JOBS: dict[str, Callable[[Path, Path, int], None]] = {
    "prepare, plain": lambda source, target, _processes: plain_prepare(source, target),
    "prepare": lambda source, target, processes: our_prepare(source, target, None, processes),
    "prepare, near duplicates": lambda source, target, processes: our_prepare(
        source, target, 0.8, processes
    ),
    "tokenize, plain": lambda source, target, _processes: plain_tokenize(source, target),
    "tokenize": our_tokenize,
}


def measure(job: str, source: Path, target: Path, processes: int) -> dict:
    """Run a job in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.prepare_throughput", str(source), "--job", job,
               "--target", str(target), "--processes", str(processes)]  # fmt: skip
    started, peak = time.monotonic(), 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as running:
        root = psutil.Process(running.pid)
        while running.poll() is None:
            peak = max(peak, _resident(root))
            time.sleep(0.05)
    if running.returncode:
        raise SystemExit(f"{job}: exit code {running.returncode}")
    seconds = time.monotonic() - started
    row = {"job": job, "seconds": round(seconds, 1), "peak_memory_mb": round(peak / 1e6),
           "read_mb": round(source.stat().st_size / 1e6),
           "written_mb": round(target.stat().st_size / 1e6)}  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def _resident(root: psutil.Process) -> int:
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def compare(source: Path, processes: int) -> dict:
    """All jobs on one file, and whether both ways agree."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        prepared = {job: Path(folder, f"{number}.jsonl") for number, job in enumerate(JOBS)}
        rows = [measure(job, source, prepared[job], processes) for job in JOBS if "prepare" in job]
        ids = [
            {json.loads(line)["id"] for line in prepared[job].open(encoding="utf-8")}
            for job in ("prepare, plain", "prepare")
        ]
        if ids[0] != ids[1]:
            raise SystemExit(f"the two ways keep different conversations: {len(ids[0] ^ ids[1])}")
        files = {job: Path(folder, job) for job in JOBS if "tokenize" in job}
        rows += [measure(job, prepared["prepare"], files[job], processes) for job in files]
        if len({sha256_of_file(file) for file in files.values()}) > 1:
            raise SystemExit("the two ways give different token files")
    seconds = {row["job"]: row["seconds"] for row in rows}
    return {
        "jobs": rows,
        "conversations_kept": len(ids[0]),
        "prepare_ratio": round(seconds["prepare, plain"] / seconds["prepare"], 2),
        "tokenize_ratio": round(seconds["tokenize, plain"] / seconds["tokenize"], 2),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("source", type=Path)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--job", choices=list(JOBS), help="run one job and nothing else")
    options.add_argument("--target", type=Path, help="file that the one job writes")
    asked = options.parse_args()
    if asked.job:
        JOBS[asked.job](asked.source, asked.target, asked.processes)
        return
    from eagle.provenance import provenance

    started = time.monotonic()
    found = compare(asked.source, asked.processes)
    result = {
        "command": f"python -m benchmarks.prepare_throughput FILE --processes {asked.processes}",
        **found,
        **provenance({}, {"file": sha256_of_file(asked.source)}, time.monotonic() - started),
    }
    write_json(RESULTS / "prepare_throughput.json", result)
    print(json.dumps({key: result[key] for key in ("prepare_ratio", "tokenize_ratio")}))


if __name__ == "__main__":
    main()
