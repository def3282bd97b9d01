"""Training throughput: the plain way against ours, on the same data, in one run.

    python -m benchmarks.train_throughput  # after `make repro`: its verifier and tokens

The plain way is what the upstream tutorial's code does: the verifier runs again in every epoch on
padded rows, logits of every position are computed and kept for the backward pass, everything in
bfloat16. Ours is the trainer as it ships. Both count the assistant's tokens only, divide them by
the wall time of the whole job, features included, and see the same documents in batches of the
same size. Each way runs in its own process, so that peak memory is measured separately. What a GPU
reaches at a 7B verifier is in benchmarks/gpu. Writes benchmarks/results/train_throughput.json with
hardware, versions and commit.
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from eagle.config import TrainConfig
from eagle.draft.draft import Draft, attend_within_documents
from eagle.draft.vocabulary import full_vocabulary, part_of_vocabulary
from eagle.files import write_json
from eagle.provenance import provenance
from eagle.tokens.token_set import TokenSet
from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, new_draft
from eagle.training.loss import Sums, eagle_loss, teach
from eagle.training.memory_and_flops import peak_memory_mb
from eagle.verifier.verifier import Verifier

RESULT = Path("benchmarks/results/train_throughput.json")
REDUCED = 8192  # tokens of a reduced softmax, as in the default
HIDDEN = 576  # of the default's verifier


def make_config(**values) -> TrainConfig:
    fixed = {
        "verifier_model_path": "-", "dataset_path": "-", "cpdir": "-",
        "mask_alignment": "official", "gradient_accumulation_steps": 1,
        "validation_updates": 10**9, "save": 10**9, "progress_seconds": 86_400.0,
    }  # fmt: skip
    return TrainConfig(**(fixed | values))


def plain_draft(config: TrainConfig, verifier: Verifier) -> Draft:
    """A draft with bfloat16 weights, as in the upstream tutorial."""
    _, draft = new_draft(config, verifier)
    return draft.cast(torch.bfloat16)


def plain_loss(
    draft: Draft, verifier: Verifier, tokens: TokenSet, documents: Sequence[int]
) -> tuple[Sums, Tensor]:
    """The tutorial's way, with the right pairing, so that both do the same work.

    Returns:
        The sums over the documents' counted positions, without agreements, and the number of those
        positions.
    """
    device = verifier.head.device
    rows = [tokens.token_ids[tokens.span(d)].long() for d in documents]
    masks = [tokens.loss_mask[tokens.span(d)].float() for d in documents]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)  # [B, L]
    mask = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True).to(device)[:, :-1, None]
    for row, document in enumerate(documents):
        mask[row, tokens.length(document) - 1 :] = 0
    with torch.no_grad():
        features = verifier.features(ids)  # [B, L, H]
        targets = features[:, 1:]
        teacher = (targets @ verifier.head.T).softmax(-1)  # [B, L - 1, V]
    inputs = features[:, :-1] + torch.empty_like(features[:, :-1]).uniform_(-0.1, 0.1)
    count, length = inputs.shape[:2]
    predicted = draft(
        inputs.flatten(0, 1),
        verifier.embedding[ids[:, 1:]].flatten(0, 1),
        torch.arange(length, device=device).repeat(count),
        attend_within_documents([length] * count, "sdpa"),
    ).unflatten(0, (count, length))
    log_probabilities = (predicted @ verifier.head.T).log_softmax(-1)
    classification = -(teacher * log_probabilities).sum(-1, keepdim=True) * mask
    regression = functional.smooth_l1_loss(predicted, targets, reduction="none")
    regression = regression.mean(-1, keepdim=True) * mask
    agreements = torch.zeros((), device=device)  # not counted on this path
    return Sums(regression.sum(), classification.sum(), agreements), mask.sum()


def plain_job(
    tokens: TokenSet, verifier: Verifier, draft: Draft, epochs: int, batch: int
) -> Callable[[], None]:
    """The tutorial's loop over shuffled documents, with a draft in bfloat16."""
    optimizer = torch.optim.AdamW(draft.parameters(), lr=2e-4, betas=(0.9, 0.95))

    def job() -> None:
        for epoch in range(epochs):
            order = list(range(len(tokens)))
            random.Random(epoch).shuffle(order)
            for start in range(0, len(order), batch):
                sums, counted = plain_loss(draft, verifier, tokens, order[start : start + batch])
                ((sums.regression + 0.1 * sums.classification) / counted).backward()
                torch.nn.utils.clip_grad_value_(draft.parameters(), 0.5)
                optimizer.step()
                optimizer.zero_grad()

    return job


def our_job(
    tokens: TokenSet,
    verifier: Verifier,
    softmax_vocabulary: int | None,
    epochs: int,
    batch: int,
    features: str,
    passes: int = 1,
) -> Callable[[], None]:
    """The trainer as it ships, with an empty feature cache."""

    def job() -> None:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["EAGLE_CACHE"] = folder  # an empty one: features are part of the job
            config = make_config(
                epochs=epochs, micro_batch_size=batch, features=features, replay_passes=passes,
                replay_documents=max(batch, 128), softmax_vocabulary=softmax_vocabulary,
            )  # fmt: skip
            trainer = build_trainer(
                *new_draft(config, verifier), verifier,
                "",  # no other verifier uses this cache
                tokens, tokens.part(0, 1), Path(folder), NullTracker(),
            )  # fmt: skip
            trainer.run()

    return job


def masked_tokens(tokens: TokenSet, stop: list[int]) -> int:
    return sum(int(tokens.counted(d, "official", stop).sum()) for d in range(len(tokens)))


def measure(job: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Wall seconds and peak memory in MB; on a CPU the process's high-water mark so far."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started = time.perf_counter()
    job()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, peak_memory_mb(device)


def matmul_rate(device: torch.device) -> float:
    """bfloat16 products a second in TFLOP/s, the machine's own ceiling, by one large product."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds, _ = measure(lambda: [a @ b for _ in range(20)], device)
    return 20 * 2 * size**3 / seconds / 1e12


def loss_table(hidden: int, device: torch.device) -> list[dict]:
    """The classification loss alone, forward and backward, of one sequence: rows a second."""
    table = []
    for vocabulary in (32_000, 49_152, 151_936):
        head = torch.randn(vocabulary, hidden, device=device, dtype=torch.bfloat16) / 10
        whole = full_vocabulary(head)
        part = part_of_vocabulary(head, torch.arange(REDUCED, device=device))
        for rows in (256, 1024, 2048):
            target = torch.randn(rows, hidden, device=device)
            predicted = (target + 0.1).requires_grad_()

            def plain(p=predicted, t=target, h=head) -> None:
                teacher = (t.bfloat16() @ h.T).softmax(-1)
                (-(teacher * (p.bfloat16() @ h.T).log_softmax(-1)).sum()).backward()

            row = {"vocabulary": vocabulary, "sequence_length": rows}
            jobs = {"plain": plain}
            for name, over in (("whole", whole), ("reduced", part)):
                taught = teach(target, over)

                def ours(p=predicted, t=target, over=over, taught=taught) -> None:
                    eagle_loss(p, t, taught, over).classification.backward()

                jobs[name] = ours
            for name, job in jobs.items():
                job()
                seconds, _ = measure(lambda job=job: [job() for _ in range(3)], device)
                row[f"{name}_rows_per_second"] = round(3 * rows / seconds)
            table.append(row)
    return table


def load(documents: int, device: torch.device) -> tuple[Verifier, TokenSet]:
    """The verifier and the documents, the same for every way."""
    verifier = Verifier.load(Path("resources/verifier"), torch.bfloat16, device)
    tokens = TokenSet.load(Path("resources/tokens/train.safetensors"))
    return verifier, tokens.part(0, documents)


def run_one(way: str, arguments: argparse.Namespace) -> dict:
    """One way of training, measured."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    verifier, tokens = load(arguments.documents, device)
    epochs, batch = arguments.epochs, arguments.batch
    if way == "plain":
        job = plain_job(tokens, verifier, plain_draft(make_config(), verifier), epochs, batch)
    else:
        features, softmax = way.split(", ")
        vocabulary = REDUCED if softmax == "reduced" else None
        source, _, passes = features.partition(" ")
        job = our_job(tokens, verifier, vocabulary, epochs, batch, source, int(passes or 1))
    seconds, memory = measure(job, device)
    masked = epochs * masked_tokens(tokens, verifier.stop_token_ids)
    return {
        "way": way,
        "seconds": round(seconds, 1),
        "masked_tokens_per_second": round(masked / seconds, 1),
        "peak_memory_mb": round(memory),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--documents", type=int, default=40)
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--way", help="run this one alone and print what was measured")
    arguments = options.parse_args()
    if arguments.way:
        print(json.dumps(run_one(arguments.way, arguments)))
        return
    ways = [
        f"{features}, {softmax}"
        for softmax in ("whole", "reduced")
        for features in ("cache", "replay 1", f"replay {arguments.epochs}")
    ]
    rows = []
    for way in ["plain", *ways]:
        command = [sys.executable, "-m", "benchmarks.train_throughput", *sys.argv[1:], "--way", way]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
        rows[-1]["times_plain"] = round(rows[0]["seconds"] / rows[-1]["seconds"], 2)
        print(json.dumps(rows[-1]), flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = {
        "command": f"python -m benchmarks.train_throughput {' '.join(sys.argv[1:])}".strip(),
        "ways": rows,
        "loss_alone": loss_table(HIDDEN, device),
        "matmul_tflops": round(matmul_rate(device), 3),
        "reduced_vocabulary": REDUCED,
        **provenance({}, {}, sum(row["seconds"] for row in rows)),
    }
    write_json(RESULT, result)
    print(json.dumps(result["loss_alone"], indent=1))


if __name__ == "__main__":
    main()
