"""Compare the exported draft in a real engine with our own chain, on the same prompts.

    make serve-check                                # vLLM for CPUs, installed in .venv-vllm
    make serve-check ENGINE_PYTHON=/…/bin/python    # an environment that has vLLM or SGLang

The engine loads its layout of models/export. Both it and our chain draft from all tokens. The share
of steps that accept at least the first n drafted tokens must lie in the 95% interval of our
chain's, in float32 and in bfloat16; in float32 the texts must be the same up to proven ties
(eagle/evaluation/lossless.py). Writes benchmarks/results/serve_check.json; the exit code of a
disagreement is 1.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from eagle.checksums import check
from eagle.command_line import parser
from eagle.config import Evaluate, load_params
from eagle.decoding.speculative import Generation, chain
from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import check_fit
from eagle.errors import InputError, one_clear_message
from eagle.evaluation.intervals import wilson_interval
from eagle.evaluation.lossless import compare_texts
from eagle.files import sha256_of_folder, write_json
from eagle.provenance import provenance
from eagle.questions import select_questions
from eagle.system_prompts import system_turn
from eagle.template.template import encode_prompt, load_template
from eagle.tokens.tokenizer import load_tokenizer
from eagle.verifier.verifier import Verifier

VERIFIER = Path("resources/verifier")
EXPORT = Path("models/export")
TEMPLATE = Path("results/template/chat_template.jinja")
RESULT = Path("benchmarks/results/serve_check.json")
PROGRAMS = {"vllm": Path("tools/vllm_decode.py"), "sglang": Path("tools/sglang_decode.py")}
PROMPTS, NEW_TOKENS, DRAFT_LENGTH = 12, 48, 5
ENGINE_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB; by default half of the machine's memory
}


def main(engine_python: Path) -> int:
    started = time.monotonic()
    params = load_params()
    prompts = first_turns(params.evaluate)
    engine = engine_of(engine_python)
    check(VERIFIER, EXPORT / engine, EXPORT / "official")
    answers, rows, comparisons = {}, [], []
    for dtype in ("float32", "bfloat16"):
        answers = engine_answers(engine_python, engine, EXPORT / engine, prompts, dtype)
        ours = our_answers(EXPORT / "official", prompts, dtype)
        rows += acceptance_rows(dtype, ours, answers["answers"])
        if dtype == "float32":
            comparisons = compare_texts(
                lambda: Verifier.load(VERIFIER, torch.float64, torch.device("cpu")),
                prompts,
                [answer["token_ids"] for answer in answers["answers"]],
                [answer["token_ids"] for answer in ours],
            )
    texts = {
        "prompts": len(comparisons),
        "identical": sum(comparison.identical for comparison in comparisons),
        "ties": sum(
            comparison.lossless() and not comparison.identical for comparison in comparisons
        ),
    }
    agree = all(row["inside"] for row in rows) and all(
        comparison.lossless() for comparison in comparisons
    )
    settings = {
        "bench": params.evaluate.bench, "prompts": len(prompts), "new_tokens": NEW_TOKENS,
        "draft_length": DRAFT_LENGTH,
    }  # fmt: skip
    inputs = {
        "verifier": sha256_of_folder(VERIFIER),
        "draft_in_the_engine": sha256_of_folder(EXPORT / engine),
        "draft_in_our_chain": sha256_of_folder(EXPORT / "official"),
    }
    result = {
        "engine": answers["engine"],
        "agree": agree,
        "acceptance": rows,
        "texts_float32": texts,
        "provenance": provenance(settings, inputs, time.monotonic() - started),
    }
    write_json(RESULT, result)
    _print(result)
    return 0 if agree else 1


def engine_of(python: Path) -> str:
    """The name of the engine, one of PROGRAMS, that the interpreter can import.

    Raises:
        InputError: the interpreter cannot be run, or has no engine.
    """
    find = f"from importlib.util import find_spec; print(*filter(find_spec, {list(PROGRAMS)}))"
    try:
        run = subprocess.run([str(python), "-c", find], capture_output=True, text=True)
    except OSError as error:
        raise InputError(
            f"{python}: cannot be run ({error.strerror}); `make serve-check` installs vLLM, "
            "ENGINE_PYTHON names an interpreter that has it"
        ) from None
    if not run.stdout.strip():
        raise InputError(f"{python}: has neither {' nor '.join(PROGRAMS)}; install one of them")
    return run.stdout.split()[0]


def engine_answers(
    python: Path, engine: str, draft: Path, prompts: list[list[int]], dtype: str
) -> dict:
    """Run the engine's program with its interpreter. Returns {engine, answers}.

    Raises:
        InputError: the engine failed; its own messages are printed.
    """
    job = {
        "verifier": str(VERIFIER.resolve()),
        "draft": str(draft.resolve()),
        "dtype": dtype,
        "prompts": prompts,
        "maximum_new_tokens": NEW_TOKENS,
        "draft_length": DRAFT_LENGTH,
    }
    with tempfile.TemporaryDirectory() as folder:
        job_file, answer_file = Path(folder, "job.json"), Path(folder, "answer.json")
        write_json(job_file, job)
        print(f"serve_check: {dtype}, {len(prompts)} prompts in the engine", flush=True)
        run = subprocess.run(
            [str(python), str(PROGRAMS[engine]), str(job_file), str(answer_file)],
            env=os.environ | ENGINE_ENVIRONMENT, capture_output=True, text=True,
        )  # fmt: skip
        if run.returncode or not answer_file.is_file():
            print(run.stdout[-4000:] + run.stderr[-4000:], file=sys.stderr)
            raise InputError(
                f"the engine ended with exit code {run.returncode}; its messages are printed above"
            )
        return json.loads(answer_file.read_text())


def our_answers(draft_folder: Path, prompts: list[list[int]], dtype: str) -> list[dict]:
    """Answers of our chain, in the form that tools/vllm_decode.py writes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    verifier = Verifier.load(VERIFIER, getattr(torch, dtype), device)
    draft = load_draft(draft_folder).to(device).cast(getattr(torch, dtype))
    check_fit(draft.config, verifier.config, str(draft_folder))
    print(f"serve_check: {dtype}, {len(prompts)} prompts in our chain", flush=True)
    generations = [chain(verifier, draft, prompt, NEW_TOKENS, DRAFT_LENGTH) for prompt in prompts]
    del verifier, draft
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the engine comes next, and wants the GPU to itself
    return [answer_of(generation) for generation in generations]


def acceptance_rows(dtype: str, ours: list[dict], engine: list[dict]) -> list[dict]:
    """A row a position: both shares, our interval, and whether the engine's share lies in it.

    Raises:
        InputError: our chain or the engine drafted nothing.
    """
    for name, answers in (("our chain", ours), ("the engine", engine)):
        if not any(answer["drafts"] for answer in answers):
            raise InputError(
                f"{name} drafted nothing in {dtype}: either every reply ended with its first "
                "token, or the draft was not used"
            )
    rows = []
    for position in range(DRAFT_LENGTH):
        (accepted, steps), (engine_accepted, engine_steps) = (
            (
                sum(answer["accepted"][position] for answer in answers),
                sum(answer["drafts"] for answer in answers),
            )
            for answers in (ours, engine)
        )
        low, high = wilson_interval(accepted, steps)
        share = engine_accepted / engine_steps
        rows.append(
            {
                "dtype": dtype,
                "position": position + 1,
                "ours": accepted / steps,
                "ours_95": [low, high],
                "engine": share,
                "inside": low <= share <= high,
            }
        )
    return rows


def answer_of(generation: Generation) -> dict:
    """A generation in the form that tools/vllm_decode.py writes."""
    return {
        "token_ids": generation.token_ids,
        "drafts": len(generation.accepted),
        "accepted": [
            sum(count > position for count in generation.accepted)
            for position in range(DRAFT_LENGTH)
        ],
    }


def first_turns(settings: Evaluate) -> list[list[int]]:
    """Token ids of the first turns of PROMPTS questions."""
    opening = system_turn(settings.system_prompt)
    tokenizer = load_tokenizer(VERIFIER)
    template = load_template(str(TEMPLATE), tokenizer)
    return [
        encode_prompt(
            tokenizer, template, [*opening, {"role": "user", "content": question["turns"][0]}]
        )
        for question in select_questions(settings.bench, PROMPTS)
    ]


def _print(result: dict) -> None:
    table = Table("precision", "drafted tokens accepted", "our chain", "95%", result["engine"], "")
    for row in result["acceptance"]:
        low, high = row["ours_95"]
        table.add_row(
            row["dtype"], f"at least {row['position']}", f"{row['ours']:.3f}",
            f"{low:.3f}–{high:.3f}", f"{row['engine']:.3f}", "" if row["inside"] else "OUTSIDE",
        )  # fmt: skip
    Console().print(table)
    texts = result["texts_float32"]
    print(
        f"float32 texts: {texts['identical']} of {texts['prompts']} identical, {texts['ties']} "
        f"differ at a proven tie. {'The engine agrees.' if result['agree'] else 'DISAGREEMENT.'} "
        f"Wrote {RESULT}"
    )


if __name__ == "__main__":
    options = parser("tools.serve_check", __doc__)
    options.add_argument("python", type=Path, help="the engine's interpreter")
    with one_clear_message():
        sys.exit(main(options.parse_args().python))
