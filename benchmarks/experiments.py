"""Which recipe learns best: every variant from one table, resumable, results as JSON lines.

    python -m benchmarks.experiments          # after `make repro`: its verifier, tokens, features

Screening: one seed, one pass over the default's first training documents, 100,000 trained tokens;
features are shared through the cache, and each variant changes one thing in the recipe that ships.
Then three seeds, two passes and real decoding for the page's recipe, the official one and ours.
What is measured on are training documents that no variant trains on, so the validation set has no
part in any choice. A variant whose line stands in benchmarks/results/experiments.jsonl is not run
again; docs/experiments.md has the reading.
Acceptance by position is the teacher-forced estimate of validation (`eagle.training.batch.chain_acceptance_counts`),
tau at k = 4 follows from it; `measured_tau` comes from decoding.
"""

import json
import math
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

import eagle.train  # noqa: F401  for what it sets for a CPU
from eagle.config import TrainConfig, load_params
from eagle.decoding.speculative import chain
from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft, draft_config
from eagle.draft.vocabulary import full_vocabulary, part_of_vocabulary
from eagle.evaluation.metrics import acceptance_length, bootstrap_interval
from eagle.files import sha256_of_folder
from eagle.questions import read_bench
from eagle.template.template import load_template
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import ClearML
from eagle.training.batch import Split
from eagle.training.feature_cache import CachedFeatures
from eagle.training.initialization import initialize_random
from eagle.training.trainer import Trainer
from eagle.verifier.verifier import Verifier
from scripts.train import command_of

VERIFIER, TOKENS = Path("resources/verifier"), Path("resources/tokens")
RESULTS = Path("benchmarks/results/experiments.jsonl")

TRAINED_TOKENS = 100_000
HELD_OUT = 50  # documents after those
ONE_PASS = {"epochs": 1, "num_warmup_steps": 20}
SCREENED: dict[str, dict] = {
    "as it ships": {},
    "whole vocabulary": {"softmax_vocabulary": None},
    "random initialisation": {"initialization": "random"},
    "random initialisation, 3e-3": {"initialization": "random", "learning_rate": 3e-3},
    "official mask": {"mask_alignment": "official"},
    "prompts too": {"data": "prompts too", "mask_alignment": "official"},
    "no noise": {"noise_low": 0.0, "noise_high": 0.0},
    "noise 0.5": {"noise_low": -0.5, "noise_high": 0.5},
    "noise scaled by length": {"noise_form": "length_scaled"},
    "regression weight 0.1": {"v_w": 0.1},
    "regression weight 0": {"v_w": 0.0},
    "classification weight 0.1": {"p_w": 0.1},
    "learning rate 1.5e-4": {"learning_rate": 1.5e-4},
    "learning rate 6e-4": {"learning_rate": 6e-4},
    "2 conversations an update, 4.2e-4": {"micro_batch_size": 2, "learning_rate": 4.2e-4},
    "4 conversations an update, 6e-4": {"micro_batch_size": 4, "learning_rate": 6e-4},
    "no warm-up": {"num_warmup_steps": 0},
    "value clip 0.5": {"grad_clip_form": "value"},
    "norm clip 8": {"grad_clip": 8.0},
    "b2 0.99": {"b2": 0.99},
    "one rollout step": {"rollout_steps": 1},
    "two rollout steps": {"rollout_steps": 2},
    "cosine schedule": {"trainer": "cosine"},
    "warm-up, stable, decay": {"trainer": "stable_decay"},
    "averaged weights": {"trainer": "averaged"},
}
PAGE = {
    "initialization": "random", "softmax_vocabulary": None, "mask_alignment": "official",
    "learning_rate": 2e-4, "p_w": 0.1, "micro_batch_size": 16, "grad_clip_form": "value",
}  # fmt: skip
FINALS: dict[str, dict] = {
    "page": PAGE,
    "official": PAGE | {"learning_rate": 3e-5, "noise_form": "length_scaled"},
    "shipped": {},
}
FINAL_EPOCHS = 2


class Cosine(Trainer):
    """The learning rate falls along a cosine after the warm-up."""

    def _learning_rate(self, update: int) -> float:
        linear = super()._learning_rate(update)
        if update < self.warmup:
            return linear
        done = 1 - linear / self.command.learning_rate
        return self.command.learning_rate * (1 + math.cos(math.pi * done)) / 2


class StableDecay(Trainer):
    """The learning rate stays for 70% of the updates, then falls in a line."""

    def _learning_rate(self, update: int) -> float:
        linear = super()._learning_rate(update)
        return linear if update < self.warmup else min(self.command.learning_rate, linear / 0.3)


class Averaged(Trainer):
    """What is validated, and at the end kept, is a running average of the weights."""

    DECAY = 0.99

    def _update(self, update: int) -> Tensor:
        if not hasattr(self, "average"):
            self.average = [p.detach().clone() for p in self.draft.parameters()]
        sums = super()._update(update)
        for mean, parameter in zip(self.average, self.draft.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1 - self.DECAY)
        return sums

    def _validate(self) -> bool:
        for mean, parameter in zip(self.average, self.draft.parameters(), strict=True):
            parameter.data.copy_(mean)  # validated once, after the last update
        return super()._validate()


TRAINERS = {
    "as it ships": Trainer, "cosine": Cosine,
    "stable_decay": StableDecay, "averaged": Averaged,
}  # fmt: skip
"""What is screened beside the parameters; a form that wins becomes one."""


class Bench:
    """What every variant shares."""

    def __init__(self) -> None:
        self.params = load_params()
        self.verifier = Verifier.load(VERIFIER, torch.bfloat16, torch.device("cpu"))
        self.hash = sha256_of_folder(VERIFIER)
        self.whole = full_vocabulary(self.verifier.head)
        tokens = TokenSet.load(TOKENS / "train.safetensors")
        masked = tokens.loss_mask.cumsum(0)[tokens.bounds[1:] - 1]  # up to each document's end
        count = int((masked < TRAINED_TOKENS).sum()) + 1
        self.train = tokens.part(0, count)
        self.validation = tokens.part(count, count + HELD_OUT)
        self.held_out = self._features(self.validation, self.whole)

    def run(self, changes: dict, evaluate: bool = False) -> dict:
        """Train one variant; its validation figures and seconds."""
        changes = dict(changes)
        form = TRAINERS[changes.pop("trainer", "as it ships")]
        train = self.train
        if changes.pop("data", None) == "prompts too":
            everything = torch.ones_like(train.loss_mask)
            train = TokenSet(train.token_ids, everything, train.bounds)
        at_the_end = {"save": 10**9, "validation_updates": 10**9}
        shipped = command_of(self.params).model_dump()
        asked = TrainConfig(**shipped | at_the_end | ONE_PASS | changes)
        trained = self.whole
        if asked.softmax_vocabulary is not None:
            said = self.train.by_frequency(len(self.whole.head))[: asked.softmax_vocabulary]
            trained = part_of_vocabulary(self.whole.head, said)
        features = self._features(train, trained)
        stop = self.verifier.stop_token_ids
        draft = Draft(draft_config(None, self.verifier.config))
        initialize_random(draft, asked.seed)
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            trainer = form(
                asked, draft, self.verifier,
                Split.make(train, features, asked.mask_alignment, stop),
                Split.make(self.validation, self.held_out, "decoding", stop),
                trained, self.whole, Path(folder), ClearML("", "", {}),
            )  # fmt: skip
            trainer.run()
            seconds = time.monotonic() - started
            measured = self._decode(load_draft(Path(folder) / "last")) if evaluate else {}
        last = trainer.state.validations[-1]
        rates = [last[f"alpha_{n}"] for n in range(5)]
        estimate, alive = 1.0, 1.0
        for rate in rates[:4]:
            alive *= rate
            estimate += alive
        return {
            "validation_loss": round(last["validation_loss"], 4),
            "top1": round(last["validation_top1"], 4),
            "alphas": [round(rate, 3) for rate in rates],
            "estimated_tau": round(estimate, 3),
            "seconds": round(seconds),
            "trained_tokens": int(sum(row["masked_tokens"] for row in trainer.state.history)),
            **measured,
        }

    def _decode(self, draft: Draft) -> dict:
        tokenizer = load_tokenizer(VERIFIER)
        template = load_template("results/template/chat_template.jinja", tokenizer)
        generations = []
        for question in read_bench(self.params.evaluate.bench, 20):
            message = [{"role": "user", "content": question["turns"][0]}]
            ids = tokenizer.apply_chat_template(
                message, chat_template=template, add_generation_prompt=True, return_dict=True
            )["input_ids"]
            draft = draft.cast(torch.bfloat16)
            generations.append(chain(self.verifier, draft, ids, 48, 4))
        return {
            "measured_tau": round(acceptance_length(generations), 3),
            "tau_95": [
                round(bound, 3)
                for bound in bootstrap_interval(acceptance_length, generations, seed=0)
            ],
        }

    def _features(self, tokens: TokenSet, vocabulary) -> CachedFeatures:
        return CachedFeatures(tokens, self.verifier, vocabulary, self.hash, 30)


def main() -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if RESULTS.is_file():
        done = {json.loads(line)["name"] for line in RESULTS.read_text().splitlines()}
    work = [(f"screen: {name}", changes, False) for name, changes in SCREENED.items()]
    for seed in (0, 1, 2):
        for name, changes in FINALS.items():
            more = {"epochs": FINAL_EPOCHS, "seed": seed}
            work.append((f"final: {name}, seed {seed}", changes | more, True))
    bench = Bench()
    for name, changes, evaluate in work:
        if name in done:
            continue
        row = {"name": name, "changes": changes} | bench.run(changes, evaluate)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
