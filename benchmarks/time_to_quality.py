"""Seconds until the draft finds 35% of the verifier's tokens: ours, and the official recipe.

    python -m benchmarks.time_to_quality      # after `make repro`: its verifier and tokens

Ours is the shipped recipe from an empty feature cache. The official one (SafeAILab/EAGLE:
regression 1, classification 0.1, random weights, noise scaled by length, official mask, constant
rate after the warm-up, here 5% of the updates of four passes) takes batches of the same size on
the plain path of `train_throughput`: the verifier runs again for every batch, padded, with full
logits. Its learning rate is the best of three after one pass with our trainer, whose updates are
the same but for rounding. The plain path runs until it reaches the target, or until LIMIT times our
seconds are over. Validations count in neither. Results go to benchmarks/results/ with hardware,
versions and commit.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.train_throughput import plain_draft, plain_loss
from eagle.config import TrainConfig, load_params
from eagle.draft.draft import Draft
from eagle.draft.vocabulary import full_vocabulary
from eagle.files import sha256_of_folder, write_json
from eagle.provenance import provenance
from eagle.tokens.token_set import TokenSet
from eagle.tracking import NullTracker
from eagle.training.build import build_trainer, new_draft
from eagle.training.feature_cache import CachedFeatures
from eagle.training.history import UpdateLosses, UpdateSums
from eagle.training.schedule import Schedule
from eagle.training.trainer import Trainer
from eagle.verifier.verifier import Verifier
from scripts.train import global_batch_size, train_config

VERIFIER, TOKENS = Path("resources/verifier"), Path("resources/tokens")
RESULT = Path("benchmarks/results/time_to_quality.json")
TARGET = 0.35  # of the validation positions
LIMIT = 4.2  # times our seconds, for the plain path
PASSES = 4  # of the official recipe
RATES = (3e-5, 1e-4, 3e-4)  # the first is the official code's
LOOK = 50  # updates between validations

OFFICIAL = {
    "initialization": "random", "softmax_vocabulary": None, "mask_alignment": "official",
    "noise_form": "length_scaled", "grad_clip_form": "value", "v_w": 1.0, "p_w": 0.1,
    "epochs": PASSES,
}  # fmt: skip


class Timed(Trainer):
    """Notes the seconds without validations at each of them, and ends at the target."""

    started: float
    """time.monotonic() when its time began; set before it runs."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.validating = 0.0
        self.points: list[dict] = []

    @property
    def training_seconds(self) -> float:
        return time.monotonic() - self.started - self.validating

    def _validate(self) -> bool:
        seconds, began = self.training_seconds, time.monotonic()
        going_on = super()._validate()
        self.validating += time.monotonic() - began
        top1 = self.state.validations[-1]["validation_top1"]
        point = {"update": self.state.update, "seconds": round(seconds, 1), "top1": round(top1, 4)}
        self.points.append(point)
        print(point, flush=True)
        if top1 >= TARGET:
            self.end = self.state.update
        return going_on


class Constant(Schedule):
    """The rate stays at its peak: the official schedule's 800,000 updates hardly decay."""

    def learning_rate(self, update: int) -> float:
        return self.peak * min(1.0, (update + 1) / (self.warmup + 1))


class Official(Timed):
    """The official recipe's schedule on our trainer."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.schedule = Constant(**vars(self.schedule))


class Plain(Official):
    """The official recipe on the plain path."""

    limit: float
    """Seconds after which it ends; set before it runs."""

    def _update(self, update: int) -> UpdateLosses:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(update)
        sums, counted = plain_loss(
            self.draft, self.verifier, self.train.tokens, self.updates[update].documents
        )
        loss = (sums.regression + self.config.p_w * sums.classification) / counted
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.draft.parameters()])
        torch.nn.utils.clip_grad_value_(self.draft.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.training_seconds > self.limit:
            self.end = update + 1
        values = UpdateSums(**sums._asdict(), loss=loss)
        return UpdateLosses(
            update, UpdateSums(*(value.detach().double() for value in values)), int(counted), norm
        )


class Race:
    """The verifier, the documents and the validation, the same for all runs."""

    def __init__(self) -> None:
        self.params = load_params()
        self.verifier = Verifier.load(VERIFIER, torch.bfloat16, torch.device("cpu"))
        self.hash = sha256_of_folder(VERIFIER)
        self.train, self.validation = (
            TokenSet.load(TOKENS / f"{name}.safetensors") for name in ("train", "validation")
        )
        self._fill_cache(self.validation)  # outside of any run's time

    def ours(self, folder: Path) -> list[dict]:
        started = time.monotonic()
        config = self._config({})
        trainer = self._trainer(Timed, *new_draft(config, self.verifier), folder)
        trainer.started = started
        trainer.run()
        return trainer.points

    def official(self, rate: float, folder: Path) -> list[dict]:
        a_pass = len(self.train) // global_batch_size(self.params.train)
        once = {"num_training_steps": a_pass, "validation_updates": a_pass}
        config = self._config(OFFICIAL | {"learning_rate": rate} | once)
        self._fill_cache(self.train)
        trainer = self._trainer(Official, *new_draft(config, self.verifier), folder)
        trainer.started = time.monotonic()
        trainer.run()
        return trainer.points

    def plain(self, rate: float, folder: Path, limit: float) -> list[dict]:
        config = self._config(OFFICIAL | {"learning_rate": rate})
        # the cached features are for validation; training on the plain path does not use them
        trainer = self._trainer(Plain, config, plain_draft(config, self.verifier), folder)
        trainer.started, trainer.limit = time.monotonic(), limit
        trainer.run()
        return trainer.points

    def _trainer(self, form: type[Timed], config: TrainConfig, draft: Draft, folder: Path) -> Timed:
        folder.mkdir()
        return build_trainer(
            config, draft, self.verifier, self.hash, self.train, self.validation, folder,
            NullTracker(), form,
        )  # fmt: skip

    def _config(self, changes: dict) -> TrainConfig:
        shipped = train_config(self.params)
        values = {"features": "cache", "save": 10**9, "validation_updates": LOOK} | changes
        if changes:
            updates = PASSES * len(self.train) // shipped.micro_batch_size
            values["num_warmup_steps"] = updates // 20
        return TrainConfig(**shipped.model_dump() | values)

    def _fill_cache(self, tokens: TokenSet) -> None:
        """Compute features and the teacher over the full vocabulary, unless they are there."""
        CachedFeatures(tokens, self.verifier, full_vocabulary(self.verifier.head), self.hash, 60)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["EAGLE_CACHE"] = folder  # an empty one: features are part of our seconds
        race = Race()
        ours = race.ours(Path(folder, "ours"))
        if ours[-1]["top1"] < TARGET:
            raise SystemExit(f"the shipped recipe ends at {ours[-1]['top1']}, below {TARGET}")
        search = {rate: race.official(rate, Path(folder, f"{rate}")) for rate in RATES}
        best = max(RATES, key=lambda rate: search[rate][-1]["top1"])
        limit = LIMIT * ours[-1]["seconds"]
        plain = race.plain(best, Path(folder, "plain"), limit)
    write_json(RESULT, {
        "target_top1": TARGET,
        "ours": ours,
        "official_recipe_after_a_pass": {str(rate): points[-1] for rate, points in search.items()},
        "official_recipe_on_the_plain_path": {"learning_rate": best, "points": plain},
        "plain_reached_it": plain[-1]["top1"] >= TARGET,
        "times_our_seconds": round(plain[-1]["seconds"] / ours[-1]["seconds"], 2),
        **provenance({}, {"verifier": race.hash}, time.monotonic() - began),
    })  # fmt: skip
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
