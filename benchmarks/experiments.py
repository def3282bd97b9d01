"""Which recipe learns best: every variant from one table, resumable, results as JSON lines.

    python -m benchmarks.experiments          # after `make repro`: its verifier, tokens, features

Screening: one seed, one pass over the default's first training documents, 100,000 trained tokens.
The variants share features through the cache, and each changes one thing in the recipe that ships.
Then three seeds, two passes and real decoding for the upstream tutorial's recipe, the official one
and ours. All are measured on training documents that no variant trains on, so the validation set
has no part in any choice. A variant that has a line in benchmarks/results/experiments.jsonl is not
run again; docs/experiments.md interprets the results.
Acceptance by position is validation's teacher-forced estimate
(`eagle.training.batch.chain_acceptance_counts`), and tau at k = 4 follows from it; `measured_tau`
comes from decoding.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path

import torch

from eagle.config import TrainConfig, load_params
from eagle.decoding.speculative import chain
from eagle.draft.checkpoint import load_draft
from eagle.draft.draft import Draft
from eagle.evaluation.intervals import interval_over_prompts
from eagle.evaluation.metrics import acceptance_length
from eagle.files import sha256_of_folder
from eagle.questions import select_questions
from eagle.template.template import load_template
from eagle.tokens.token_set import TokenSet
from eagle.tokens.tokenizer import load_tokenizer
from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, new_draft
from eagle.training.history import UpdateLosses
from eagle.training.schedule import Schedule
from eagle.training.trainer import Trainer
from eagle.verifier.verifier import Verifier
from scripts.train import train_config

VERIFIER, TOKENS = Path("resources/verifier"), Path("resources/tokens")
RESULTS = Path("benchmarks/results/experiments.jsonl")

TRAINED_TOKENS = 100_000
HELD_OUT = 50  # documents after those
FIXED = {"features": "cache", "save": 10**9, "validation_updates": 10**9}
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
TUTORIAL = {
    "initialization": "random", "softmax_vocabulary": None, "mask_alignment": "official",
    "learning_rate": 2e-4, "p_w": 0.1, "micro_batch_size": 16, "grad_clip_form": "value",
}  # fmt: skip
FINALS: dict[str, dict] = {
    "tutorial": TUTORIAL,
    "official": TUTORIAL | {"learning_rate": 3e-5, "noise_form": "length_scaled"},
    "shipped": {},
}
FINAL_EPOCHS = 2


class Cosine(Schedule):
    """The learning rate falls along a cosine after the warm-up."""

    def learning_rate(self, update: int) -> float:
        linear = super().learning_rate(update)
        if update < self.warmup:
            return linear
        done = 1 - linear / self.peak
        return self.peak * (1 + math.cos(math.pi * done)) / 2


class StableDecay(Schedule):
    """The learning rate stays for 70% of the updates, then falls in a straight line."""

    def learning_rate(self, update: int) -> float:
        linear = super().learning_rate(update)
        return linear if update < self.warmup else min(self.peak, linear / 0.3)


class Averaged(Trainer):
    """The draft that is validated, and kept at the end, is a running average of the weights."""

    DECAY = 0.99

    def _update(self, update: int) -> UpdateLosses:
        if not hasattr(self, "average"):
            self.average = [p.detach().clone() for p in self.draft.parameters()]
        losses = super()._update(update)
        for mean, parameter in zip(self.average, self.draft.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1 - self.DECAY)
        return losses

    def _validate(self) -> bool:
        for mean, parameter in zip(self.average, self.draft.parameters(), strict=True):
            parameter.data.copy_(mean)  # validated once, after the last update
        return super()._validate()


# Trainers and schedules that are screened beside the parameters; one that wins becomes a parameter.
FORMS = {
    "as it ships": (Trainer, Schedule), "cosine": (Trainer, Cosine),
    "stable_decay": (Trainer, StableDecay), "averaged": (Averaged, Schedule),
}  # fmt: skip


class Bench:
    """What all variants share."""

    def __init__(self) -> None:
        self.params = load_params()
        self.verifier = Verifier.load(VERIFIER, torch.bfloat16, torch.device("cpu"))
        self.hash = sha256_of_folder(VERIFIER)
        tokens = TokenSet.load(TOKENS / "train.safetensors")
        masked = tokens.loss_mask.cumsum(0)[tokens.bounds[1:] - 1]  # up to each document's end
        count = int((masked < TRAINED_TOKENS).sum()) + 1
        self.train = tokens.part(0, count)
        self.validation = tokens.part(count, count + HELD_OUT)

    def run(self, changes: dict, decode: bool = False) -> dict:
        """Train one variant; returns its validation figures and seconds."""
        changes = dict(changes)
        form, schedule = FORMS[changes.pop("trainer", "as it ships")]
        train = self.train
        if changes.pop("data", None) == "prompts too":
            everything = torch.ones_like(train.loss_mask)
            train = TokenSet(train.token_ids, everything, train.bounds)
        shipped = train_config(self.params).model_dump()
        config = TrainConfig(**shipped | FIXED | ONE_PASS | changes)
        with tempfile.TemporaryDirectory() as folder:
            trainer = build_trainer(
                *new_draft(config, self.verifier), self.verifier, self.hash,
                train, self.validation, Path(folder), NullTracker(), form,
            )  # fmt: skip
            trainer.schedule = schedule(**vars(trainer.schedule))
            trainer.run()
            measured = self._decode(load_draft(Path(folder) / "last")) if decode else {}
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
            "seconds": round(trainer.state.seconds),  # without features
            "trained_tokens": int(sum(row["masked_tokens"] for row in trainer.state.history)),
            **measured,
        }

    def _decode(self, draft: Draft) -> dict:
        tokenizer = load_tokenizer(VERIFIER)
        template = load_template("results/template/chat_template.jinja", tokenizer)
        generations = []
        for question in select_questions(self.params.evaluate.bench, 20):
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
                for bound in interval_over_prompts(
                    acceptance_length,
                    generations,
                    trials=sum(len(generation.accepted) for generation in generations),
                    seed=0,
                )
            ],
        }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if RESULTS.is_file():
        done = {json.loads(line)["name"] for line in RESULTS.read_text().splitlines()}
    variants = [(f"screen: {name}", changes, False) for name, changes in SCREENED.items()]
    for seed in (0, 1, 2):
        for name, changes in FINALS.items():
            more = {"epochs": FINAL_EPOCHS, "seed": seed}
            variants.append((f"final: {name}, seed {seed}", changes | more, True))
    bench = Bench()
    for name, changes, decode in variants:
        if name in done:
            continue
        row = {"name": name, "changes": changes} | bench.run(changes, decode)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
