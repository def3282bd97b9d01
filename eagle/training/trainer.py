"""Training of a draft: updates, the validations between them, and the states on disk.

Shapes: T tokens of a micro-step side by side, M counted positions among them, H hidden.
"""

import functools
import math
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from eagle.config import TrainConfig
from eagle.draft.checkpoint import save_weights
from eagle.draft.draft import Draft
from eagle.draft.rollout import rollout
from eagle.errors import InputError
from eagle.files import write_text
from eagle.lifetime import at_ending_signals
from eagle.tracking import Progress, Tracker
from eagle.training.background_writer import BackgroundWriter
from eagle.training.batch import Batch, Split
from eagle.training.distributed import any_rank, broadcast, gather, rank_and_world, sum_over_ranks
from eagle.training.history import UpdateLosses, UpdateSums, check_finite, history_rows
from eagle.training.initialization import (
    FITTED,
    Pairs,
    initialize_from_last_layer,
    initialize_least_squares,
)
from eagle.training.loss import Sums, Teacher, block_sizes, eagle_loss
from eagle.training.low_precision import LowPrecisionDraft
from eagle.training.memory_and_flops import check_memory, peak_memory_mb, sizes_of, speed
from eagle.training.micro_steps import MicroSteps
from eagle.training.run_state import RunState, write_state
from eagle.training.schedule import Schedule
from eagle.training.updates import plan_updates
from eagle.training.validation import Validation
from eagle.verifier.attention import BACKENDS
from eagle.verifier.verifier import Verifier

# Updates whose losses are read together: the host waits for the device each time.
READ_EVERY = 10
# Columns of the history that the tracker shows.
REPORTED = ("loss", "regression", "classification", "top1", "learning_rate", "gradient_norm")
# Counted positions to which least squares fits the first weights: many for each unknown.
FITTED_POSITIONS = 50_000


def compute_dtype(config: TrainConfig) -> torch.dtype:
    """The precision of the draft's products; its weights are float32."""
    return (
        torch.bfloat16 if config.mixed_precision == "bf16" else getattr(torch, config.eagle_dtype)
    )


class Trainer:
    """One process's part of a training run. `eagle.training.build.build_trainer` makes it."""

    def __init__(
        self,
        config: TrainConfig,
        draft: Draft,
        verifier: Verifier,
        train: Split,
        validation: Split,
        run_folder: Path,
        tracker: Tracker,
    ):
        """Load the newest state in the run folder, or compute the first weights.

        Raises:
            InputError: the config does not fit the data or the memory.
        """
        began = time.monotonic()
        self.config, self.draft, self.verifier = config, draft, verifier
        self.train, self.run_folder, self.tracker = train, run_folder, tracker
        self.vocabulary = train.features.vocabulary
        self.validation = Validation(config, validation, self._predict)
        self.rank, world = rank_and_world()
        self.device = verifier.head.device
        self.compute_dtype = compute_dtype(config)
        self.optimizer = torch.optim.AdamW(
            draft.parameters(),
            lr=config.learning_rate,
            betas=(config.b1, config.b2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.ended_by: signal.Signals | None = None
        """The signal after which this process ends early."""
        self.state = RunState.resume(run_folder, draft, self.optimizer)
        self._check_same_state()
        self.saved_update = self.state.update
        self.writer = BackgroundWriter(run_folder, self.optimizer, self.device)

        documents = len(train.tokens)
        self.lengths = train.tokens.bounds.diff().tolist()
        self.global_batch = config.micro_batch_size * config.gradient_accumulation_steps * world
        planned = plan_updates(config, documents, self.global_batch)
        self.schedule = Schedule.from_config(config, len(planned), world)
        self.updates = planned[: self.schedule.total]
        self.end = len(self.updates)
        self.validation_updates = config.validation_updates or math.ceil(
            documents / self.global_batch
        )
        ahead = self.device.type == "cuda"
        self.micro_steps = MicroSteps(config, train, self.updates, ahead)
        self.sizes = sizes_of(
            config, self.compute_dtype, draft, verifier, train, validation, self.updates
        )
        self.memory = check_memory(self.sizes, self.device)

        if config.initialization in FITTED and self.state.update == 0:
            initialize_least_squares(draft, self._pairs_to_fit())
            if config.initialization == "last_layer":
                initialize_from_last_layer(draft, verifier)
        for parameter in draft.parameters():  # each rank's processor solved for them
            broadcast(parameter.data, 0)
        self.predictor: Draft | LowPrecisionDraft = draft
        if self.compute_dtype != torch.float32:
            self.predictor = LowPrecisionDraft(draft, self.compute_dtype)
        self.state.seconds += time.monotonic() - began

    def run(self) -> bool:
        """Train to the end from the update of the state; write best, last and the tables.

        Returns:
            False when a signal ended it early, with its state saved.

        Raises:
            InputError: the loss is no longer a finite number, or the disk is full, which ends the
                run at the update after the one that was to be saved.
        """
        if self.rank == 0:
            self._print_plan()
        handlers = at_ending_signals(self._end)
        self.saved_at = time.monotonic()
        self.began = self.saved_at - self.state.seconds
        self.measured_until = self.state.seconds  # of the wall time: where the speed's clock starts
        left = self.end - self.state.update
        progress_seconds = self.config.progress_seconds
        with Progress("train", left, "updates", progress_seconds) as progress, self.writer:
            finished = self._run(progress)
            if finished:
                self._write_draft("last")
        for number, handler in handlers.items():
            signal.signal(number, handler)
        read = self.verifier.read
        if self.rank == 0 and read.real:
            print(f"train: the verifier read {read}", file=sys.stderr, flush=True)
        if self.rank == 0 and finished:
            for name in ("history", "validations"):
                table = pd.DataFrame(getattr(self.state, name))
                write_text(self.run_folder / f"{name}.csv", table.to_csv(index=False))
        return finished

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, with features that were computed before training began."""
        return self.state.seconds + self.train.features.seconds

    def metrics(self) -> dict[str, float]:
        """The keys of results/train/metrics.json; validation at the best draft."""
        best = min(self.state.validations, key=lambda row: row["validation_loss"])
        masked = sum(row["masked_tokens"] for row in self.state.history)
        return {
            "validation_loss": round(best["validation_loss"], 4),
            "validation_top1": round(best["validation_top1"], 4),
            "train_tokens_per_second": round(masked / self.seconds, 1),
            "peak_memory_mb": round(peak_memory_mb(self.device)),
        }

    def _check_same_state(self) -> None:
        """Raises: InputError: ranks found different states, as without a shared folder."""
        found = gather(self.state.update)
        if len(set(found)) > 1:
            raise InputError(
                f"--cpdir: the processes found states of different updates ({found}) in "
                f"{self.run_folder}; with several machines it must be a folder that they share"
            )

    def _pairs_to_fit(self) -> Iterator[Pairs]:
        """This rank's share of the counted pairs to which the first weights are fitted."""
        documents, total = [], 0
        for document in self.updates[0].buffer:
            if total < FITTED_POSITIONS:
                documents.append(document)
                total += self.train.count_positions([document])
        self.train.features.prepare(self.updates[0].buffer)
        rank, world = rank_and_world()
        for document in documents[rank::world]:
            batch = self.train.batch([document], self.config, epoch=None)
            at, _ = batch.indices.reached[0]
            embeddings = self.verifier.embedding[batch.next_tokens[at]]
            yield Pairs(embeddings.float(), batch.features[at].float(), batch.targets.float())

    def _print_plan(self) -> None:
        share = self.end / self.schedule.total
        rows, columns = block_sizes(self.device)
        print(
            f"train: {len(self.train.tokens)} documents, "
            f"{self.global_batch} in an update, {self.end} updates, "
            f"attention {self.config.attn} ({BACKENDS[self.config.attn]}), "
            f"loss in blocks of {rows:,} x {columns:,} logits, "
            f"draft in {self.compute_dtype}"
            + (f", {share:.0%} of the schedule used" if share < 1 else "")
            + (f", resumed at update {self.state.update}" if self.state.update else "")
            + f"\ntrain: {self.memory}",
            file=sys.stderr,
            flush=True,
        )

    def _run(self, progress: Progress) -> bool:
        """Updates, and the validations between them, until the end or a signal."""
        unread: list[UpdateLosses] = []
        while True:
            # before the next update, not after the last one: a run that was ended within a
            # validation begins with it when it is started again
            if self._validation_is_due() and not self._validate():
                self._save()
                return False
            if self.state.update == self.end:
                return True
            self.writer.check()
            unread.append(self._update(self.state.update))
            self.state.update += 1
            end = self.state.update == self.end
            stop = any_rank(self.ended_by is not None) and not end
            note = ""
            save = stop or end or self._save_is_due()
            # a state has the losses of all its updates, and a validation begins when all are done
            if len(unread) == READ_EVERY or save or self._validation_is_due():
                note = self._read(unread)
                unread = []
            if save:
                self._save()
            progress.advance(note=note)
            if stop:
                return False

    def _end(self, number: int, _frame: object) -> None:
        self.ended_by = signal.Signals(number)

    def _save_is_due(self) -> bool:
        """Every `save` updates, if the newest state is `save_minutes` old by the clock of rank 0;
        the same on all ranks."""
        if self.state.update % self.config.save:
            return False
        minutes = (time.monotonic() - self.saved_at) / 60
        return any_rank(self.rank == 0 and minutes >= self.config.save_minutes)

    def _save(self) -> None:
        """Begin to write the state, unless that of this update is written or in hand."""
        if self.saved_update == self.state.update:
            return
        self.saved_update, self.saved_at = self.state.update, time.monotonic()
        self.state.seconds = self.saved_at - self.began
        if self.rank == 0:
            self.writer.write(
                f"the state after update {self.state.update}",
                self.state.content(self.draft, self.optimizer),
                functools.partial(write_state, self.run_folder),
            )
        # copying the state is not part of the next updates' time
        self.measured_until = time.monotonic() - self.began

    def _write_draft(self, name: str) -> None:
        """Begin to write the draft to the folder `name`."""
        if self.rank == 0:
            config, folder = self.draft.config, self.run_folder / name
            self.writer.write(
                f"the {name} draft",
                self.draft.state_dict(),
                lambda weights: save_weights(config, weights, folder),
            )

    def _update(self, update: int) -> UpdateLosses:
        """One optimizer step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(update)
        planned = self.updates[update]
        self.train.features.prepare(planned.buffer)
        counted = self.train.count_positions(planned.documents)
        width = len(UpdateSums._fields)
        totals = torch.zeros(width, dtype=torch.float64, device=self.device)
        for batch in self.micro_steps.batches(update):
            steps = list(self._losses(batch))
            weighted = [
                self.config.v_w * sums.regression + self.config.p_w * sums.classification
                for sums in steps
            ]
            # the update's sum over its GLOBAL count, so no split of it changes the gradient
            loss = torch.stack(weighted).mean() / max(1, counted)
            loss.backward()
            parts = UpdateSums(**steps[0]._asdict(), loss=loss)
            totals += torch.stack([value.detach().double() for value in parts])
        gradients = self._sum_gradients()
        norm = torch.nn.utils.get_total_norm(gradients)
        self._clip(gradients, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if isinstance(self.predictor, LowPrecisionDraft):
            self.predictor.refresh()
        return UpdateLosses(update, UpdateSums(*totals), counted, norm)

    def _losses(self, batch: Batch) -> Iterator[Sums]:
        """The loss of the step on true features and of each rollout step."""
        predictions = self._predict(batch, self.config.rollout_steps)
        for predicted, (at, rows) in zip(predictions, batch.indices.reached, strict=True):
            targets, teacher = batch.targets, batch.teacher
            if rows is not None:
                targets, teacher = targets[rows], Teacher(*(values[rows] for values in teacher))
            yield eagle_loss(predicted[at], targets, teacher, self.vocabulary)

    def _predict(self, batch: Batch, steps: int) -> Iterator[Tensor]:
        """Predicted features [T, H] of a batch, then `steps` times with the draft's own ones."""
        embeddings = self.verifier.embedding[batch.next_tokens].to(self.compute_dtype)
        return rollout(
            self.predictor, batch.features, embeddings, batch.indices.positions, batch.lengths,
            self.config.attn, steps, batch.indices.bounds,
        )  # fmt: skip

    def _sum_gradients(self) -> list[Tensor]:
        """Every parameter's gradient, summed over ranks; a rank without documents adds zeros."""
        for parameter in self.draft.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            sum_over_ranks(parameter.grad)
        return [parameter.grad for parameter in self.draft.parameters()]

    def _clip(self, gradients: list[Tensor], norm: Tensor) -> None:
        bound = self.config.grad_clip
        if self.config.grad_clip_form == "norm":
            torch.nn.utils.clip_grads_with_norm_(self.draft.parameters(), bound, norm)
            return
        for gradient in gradients:  # one pass over each, where clip_grad_value_ makes two
            gradient.clamp_(-bound, bound)

    def _read(self, unread: list[UpdateLosses]) -> str:
        """Put losses into the history and the tracker; returns the newest for the progress line."""
        seconds = time.monotonic() - self.began
        rows = history_rows(unread, self.updates, self.lengths, self.schedule, seconds)
        for row in rows:
            check_finite(row, self.updates[row["update"]], self.run_folder)
        self.state.history += rows
        taken = seconds - self.measured_until
        measured = speed(
            self.config, self.draft, self.verifier, len(self.vocabulary.head), rows, taken
        )
        self.measured_until = seconds
        newest = rows[-1]
        masked = sum(row["masked_tokens"] for row in self.state.history)
        scalars = {name: newest[name] for name in REPORTED} | measured
        scalars["masked_tokens_per_second"] = masked / (seconds + self.train.features.seconds)
        newest |= measured
        self.tracker.scalars(
            {f"train/{name}": value for name, value in scalars.items()}, newest["update"]
        )
        return f"loss {newest['loss']:.3f}, top-1 {newest['top1']:.3f}"

    def _validation_is_due(self) -> bool:
        """Every few updates and at the end, unless it was done before an interruption."""
        at, validated = self.state.update, self.state.validations
        due = at > 0 and (at == self.end or at % self.validation_updates == 0)
        return due and not (validated and validated[-1]["update"] == at)

    def _validate(self) -> bool:
        """Validate the draft, record the result, and keep the draft if it is the best so far.

        Returns:
            False when a signal came meanwhile, on any rank; nothing is recorded then.
        """
        found = self.validation.run(lambda: self.ended_by is not None)
        if found is None:
            return False
        loss = found["validation_loss"]
        if not math.isfinite(loss):
            raise InputError(
                f"update {self.state.update}: the validation loss is {loss}; lower the learning "
                f"rate. The best draft so far, if any, stays in {self.run_folder / 'best'}"
            )
        self.state.validations.append({"update": self.state.update, **found})
        values = {f"validation/{name.removeprefix('validation_')}": found[name] for name in found}
        self.tracker.scalars(values, self.state.update)
        if loss < self.state.best_validation_loss:
            self.state.best_validation_loss = loss
            self._write_draft("best")
        self.state.seconds = self.measured_until = time.monotonic() - self.began
        return True
