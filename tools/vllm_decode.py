"""Decode prompts with vLLM and an EAGLE draft; runs in vLLM's own environment, without eagle.

    python tools/vllm_decode.py JOB ANSWER

JOB is a JSON file: verifier, draft (folders), dtype, prompts (token ids), maximum_new_tokens,
draft_length. ANSWER is written as {engine, answers}, with an answer a prompt: token_ids, drafts
(the number of verify steps), and accepted (the number of those that accepted at least the first,
the first two, … drafted tokens).
"""

import argparse
import json
import sys
from pathlib import Path


def main(job_file: Path, answer_file: Path) -> None:
    from vllm import LLM, SamplingParams, __version__

    job = json.loads(job_file.read_text())
    length = job["draft_length"]
    engine = LLM(
        model=job["verifier"],
        dtype=job["dtype"],
        speculative_config={
            "method": "eagle",
            "model": job["draft"],
            "num_speculative_tokens": length,
        },
        max_model_len=max(map(len, job["prompts"])) + job["maximum_new_tokens"] + length + 1,
        max_num_seqs=1,
        enable_prefix_caching=False,
        enforce_eager=True,  # graphs and compiled kernels would change rounding, not the draft
        disable_log_stats=False,  # the counters below
        seed=0,
    )
    greedy = SamplingParams(temperature=0, max_tokens=job["maximum_new_tokens"])
    answers = []
    before = counters(engine, length)
    for number, prompt in enumerate(job["prompts"], start=1):
        (request,) = engine.generate([{"prompt_token_ids": prompt}], greedy, use_tqdm=False)
        after = counters(engine, length)
        drafts, *accepted = (now - then for now, then in zip(after, before, strict=True))
        before = after
        token_ids = list(request.outputs[0].token_ids)
        answers.append({"token_ids": token_ids, "drafts": drafts, "accepted": accepted})
        print(f"vllm {job['dtype']}: prompt {number}/{len(job['prompts'])}", file=sys.stderr)
    answer_file.write_text(json.dumps({"engine": f"vLLM {__version__}", "answers": answers}))


def counters(engine, length: int) -> list[int]:
    """The number of drafts so far, and of those that had at least the first, second, … token
    accepted."""
    metrics = {metric.name: metric for metric in engine.get_metrics()}
    drafts = metrics["vllm:spec_decode_num_drafts"].value
    accepted = metrics["vllm:spec_decode_num_accepted_tokens_per_pos"].values
    return [drafts, *accepted[:length]]


if __name__ == "__main__":
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("job", type=Path)
    options.add_argument("answer", type=Path)
    arguments = options.parse_args()
    main(arguments.job, arguments.answer)
