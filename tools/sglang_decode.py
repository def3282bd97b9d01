"""Decode prompts with SGLang and an EAGLE draft; runs in SGLang's own environment, without eagle.

    python tools/sglang_decode.py JOB ANSWER

JOB and ANSWER are those of tools/vllm_decode.py.
"""

import argparse
import json
import sys
from itertools import accumulate
from pathlib import Path


def main(job_file: Path, answer_file: Path) -> None:
    import sglang

    job = json.loads(job_file.read_text())
    length = job["draft_length"]
    engine = sglang.Engine(
        model_path=job["verifier"],
        dtype=job["dtype"],
        speculative_algorithm="EAGLE",
        speculative_draft_model_path=job["draft"],
        speculative_num_steps=length,
        speculative_eagle_topk=1,  # a chain
        speculative_num_draft_tokens=length + 1,  # the root of the tree counts
        max_running_requests=1,
        disable_radix_cache=True,
        disable_cuda_graph=True,
        random_seed=0,
    )
    greedy = {"temperature": 0, "max_new_tokens": job["maximum_new_tokens"]}
    answers = []
    for number, prompt in enumerate(job["prompts"], start=1):
        answer = engine.generate(input_ids=prompt, sampling_params=greedy)
        accepted = at_least(answer["meta_info"]["spec_accept_histogram"], length)
        answers.append(
            {
                "token_ids": answer["output_ids"],
                "drafts": answer["meta_info"]["spec_verify_ct"],
                "accepted": accepted,
            }
        )
        print(f"sglang {job['dtype']}: prompt {number}/{len(job['prompts'])}", file=sys.stderr)
    engine.shutdown()
    answer = {"engine": f"SGLang {sglang.__version__}", "answers": answers}
    answer_file.write_text(json.dumps(answer))


def at_least(histogram: list[int], length: int) -> list[int]:
    """The number of steps that accepted at least one, two, … drafted tokens.

    Args:
        histogram: the number of steps that accepted exactly none, one, two, … tokens.
    """
    exactly = (histogram + [0] * (length + 1))[: length + 1]
    return list(accumulate(reversed(exactly)))[::-1][1:]


if __name__ == "__main__":  # SGLang's processes import this file
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("job", type=Path)
    options.add_argument("answer", type=Path)
    arguments = options.parse_args()
    main(arguments.job, arguments.answer)
