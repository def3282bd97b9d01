"""Training of a draft: order of documents, updates, validation, checkpoints.

Shapes: T tokens of a micro-step side by side, M counted positions among them, H hidden.
"""

import math
import random
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, distributed

from eagle.config import TrainConfig
from eagle.draft.checkpoint import save_draft
from eagle.draft.draft import BACKENDS, Draft
from eagle.draft.rollout import rollout
from eagle.draft.vocabulary import Vocabulary
from eagle.errors import InputError
from eagle.files import write_text
from eagle.tokens.token_set import balance_by_tokens
from eagle.tracking import ClearML, Progress
from eagle.training.batch import Batch, Split
from eagle.training.initialization import initialize_from_last_layer, initialize_least_squares
from eagle.training.loss import Sums, Teacher, eagle_loss
from eagle.training.memory_and_flops import (
    free_memory,
    memory_of_step,
    operations,
    operations_of_features,
    peak_memory_mb,
)
from eagle.training.run_state import RunState
from eagle.training.validation import Validation
from eagle.verifier.verifier import Verifier

# Updates between looks at the losses: each look makes the host wait for the device.
LOOK_EVERY = 10
# Counted positions to which least squares fits the first weights: many per unknown of a row.
FITTED_POSITIONS = 50_000


@dataclass(frozen=True)
class Update:
    """One optimizer step's documents, and those that its features are held with."""

    epoch: int
    """How often its documents were passed over before."""
    buffer: tuple[int, ...]
    documents: tuple[int, ...]


def updates_of(
    documents: int, epochs: int, global_batch: int, seed: int, buffer: int, passes: int
) -> list[Update]:
    """Every update in order: a buffer of documents is passed over `passes` times, then the next.

    Each pass over a buffer has an order of its own, and so has each drawing of the buffers. The
    order depends on nothing but the arguments, so a resumed run or one on more processes sees the
    same updates. The last update of a pass may be smaller.
    """
    updates = []
    for first in range(0, epochs, passes):
        drawn = list(range(documents))
        random.Random(f"{seed} {first}").shuffle(drawn)
        for start in range(0, documents, buffer):
            held = tuple(drawn[start : start + buffer])
            for epoch in range(first, min(first + passes, epochs)):
                order = sorted(held)  # so that a buffer of everything is like a cache
                random.Random(f"{seed} {epoch} {start}").shuffle(order)
                for at in range(0, len(order), global_batch):
                    updates.append(Update(epoch, held, tuple(order[at : at + global_batch])))
    return updates


def schedule(update: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate in a 0-based update: linear up, then linear down to zero."""
    if update < warmup:
        return (update + 1) / (warmup + 1)
    return max(0.0, (total - update) / max(1, total - warmup))


class Trainer:
    """One process's part of a training run."""

    def __init__(
        self,
        command: TrainConfig,
        draft: Draft,
        verifier: Verifier,
        train: Split,
        validation: Split,
        trained: Vocabulary,
        whole: Vocabulary,
        run_folder: Path,
        clearml: ClearML,
    ):
        began = time.monotonic()
        self.command, self.draft, self.verifier = command, draft, verifier
        self.train = train
        self.run_folder, self.clearml = run_folder, clearml
        self.rank, self.world = 0, 1
        if distributed.is_initialized():
            self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        self.device = verifier.head.device
        self.trained = trained
        self.validation = Validation(command, validation, whole, self._predictions, self._any_rank)
        self.ahead = self.device.type == "cuda"
        self.maker = ThreadPoolExecutor(1)
        self.made: dict[tuple[int, tuple[int, ...]], Future[Batch]] = {}
        compute = "bfloat16" if command.mixed_precision == "bf16" else command.eagle_dtype
        self.compute_dtype = getattr(torch, compute)
        self.optimizer = torch.optim.AdamW(
            draft.parameters(),
            lr=command.learning_rate,
            betas=(command.b1, command.b2),
            weight_decay=command.weight_decay,
            fused=True,
        )
        self.terminated = False
        self.state = RunState.resume(run_folder, draft, self.optimizer)
        self._agree_on_the_start()
        self.lengths = train.tokens.bounds.diff().tolist()
        self.micro_steps = command.gradient_accumulation_steps
        self.global_batch = command.micro_batch_size * self.micro_steps * self.world
        replays = command.features == "replay"
        self.updates = updates_of(
            len(train.tokens),
            command.epochs,
            self.global_batch,
            command.seed,
            buffer=command.replay_documents if replays else len(train.tokens),
            passes=command.replay_passes if replays else command.epochs,
        )
        self.validation_updates = command.validation_updates or math.ceil(
            len(train.tokens) / self.global_batch
        )
        self.warmup = command.num_warmup_steps // self.world
        scheduled = command.num_training_steps
        self.total = scheduled // self.world if scheduled else len(self.updates)
        self.end = min(self.total, len(self.updates))
        if replays and command.replay_documents < self.global_batch:
            raise InputError(
                f"--replay-documents = {command.replay_documents} is fewer than the "
                f"{self.global_batch} conversations of an update; raise it to at least as many"
            )
        if self.warmup >= self.total:
            raise InputError(
                f"the warm-up of {self.warmup} updates is not shorter than the schedule of "
                f"{self.total} updates; lower the warm-up or train longer"
            )
        self._check_memory()
        if command.initialization != "random" and self.state.update == 0:
            initialize_least_squares(draft, self._fitted_pairs())
            if command.initialization == "last_layer":
                initialize_from_last_layer(draft, verifier)
        if command.compile:
            draft.compile_layer()
        if self.world > 1:  # solved for on each rank's own processor
            for parameter in self.draft.parameters():
                distributed.broadcast(parameter.data, 0)
        self.state.seconds += time.monotonic() - began

    def _agree_on_the_start(self) -> None:
        """Every rank goes on from the same update.

        Raises:
            InputError: ranks found different states, as without a shared folder.
        """
        if self.world == 1:
            return
        found = [None] * self.world
        distributed.all_gather_object(found, self.state.update)
        if len(set(found)) > 1:
            raise InputError(
                f"--cpdir: the processes found states of different updates ({found}) in "
                f"{self.run_folder}; with several machines it must be a folder that they share"
            )

    def run(self) -> bool:
        """Train to the end from wherever the run folder's state stands; write best and last.

        Returns:
            False when SIGTERM ended it early, with its state saved.

        Raises:
            InputError: the loss is no longer a finite number, or the disk is full.
        """
        if self.rank == 0:
            self._announce()
        before = signal.signal(signal.SIGTERM, self._terminate)
        self.began = time.monotonic() - self.state.seconds
        self.looked = self.state.seconds  # of the wall time, at the last look at the losses
        left = self.end - self.state.update
        progress = Progress("train", left, "updates", self.command.progress_seconds)
        with progress:
            finished = self._run(progress)
        signal.signal(signal.SIGTERM, before)
        if self.rank == 0 and finished:
            save_draft(self.draft, self.run_folder / "last")
            for name in ("history", "validations"):
                table = pd.DataFrame(getattr(self.state, name))
                write_text(self.run_folder / f"{name}.csv", table.to_csv(index=False))
        return finished

    def _run(self, progress: Progress) -> bool:
        """Updates, and the validations between them, until the end or SIGTERM."""
        waiting: list[tuple[int, Tensor]] = []
        while True:
            # before the next update, not after the last: a run that SIGTERM took out of a
            # validation begins with it when it is started again
            if self._validation_is_due() and not self._validate():
                self._save()
                return False
            if self.state.update == self.end:
                return True
            waiting.append((self.state.update, self._update(self.state.update)))
            self.state.update += 1
            end = self.state.update == self.end
            stop = self._any_rank(self.terminated) and not end
            note = ""
            save = stop or end or self.state.update % self.command.save == 0
            # a state holds all its losses, and no validation waits for updates
            if len(waiting) == LOOK_EVERY or save or self._validation_is_due():
                note = self._look(waiting)
                waiting = []
            if save:
                self._save()
            progress.advance(note=note)
            if stop:
                return False

    def _terminate(self, _number: int, _frame: object) -> None:
        self.terminated = True

    def _validation_is_due(self) -> bool:
        """Every few updates and at the end, unless it was done before an interruption."""
        at, validated = self.state.update, self.state.validations
        due = at > 0 and (at == self.end or at % self.validation_updates == 0)
        return due and not (validated and validated[-1]["update"] == at)

    def _save(self) -> None:
        self.state.seconds = time.monotonic() - self.began
        if self.rank == 0:
            self.state.save(self.run_folder, self.draft, self.optimizer)
        self.looked = time.monotonic() - self.began  # saving is no part of the next updates' time

    def _any_rank(self, here: bool) -> bool:
        """Whether it is so on any rank: all of them leave after the same update."""
        if self.world == 1:
            return here
        answer = torch.tensor(int(here))  # on the CPU, so that no rank waits for its device
        distributed.all_reduce(answer, distributed.ReduceOp.MAX)
        return bool(answer)

    def metrics(self) -> dict[str, float]:
        """The contracted keys of results/train/metrics.json, validation at the best draft."""
        best = min(self.state.validations, key=lambda row: row["validation_loss"])
        seconds = self.state.seconds + self.train.features.seconds
        masked = sum(row["masked_tokens"] for row in self.state.history)
        return {
            "validation_loss": round(best["validation_loss"], 4),
            "validation_top1": round(best["validation_top1"], 4),
            "train_tokens_per_second": round(masked / seconds, 1),
            "peak_memory_mb": round(peak_memory_mb(self.device)),
        }

    def _check_memory(self) -> None:
        """Raises: InputError: the largest micro-step cannot fit beside what is held already."""
        needed, largest = 0, 0
        for update in self.updates:
            for held in balance_by_tokens(
                update.documents, self.lengths, self.world * self.micro_steps
            ):
                lengths = [self.lengths[document] for document in held]
                largest = max(largest, sum(lengths))
                steps = self.command.rollout_steps
                needed = max(needed, memory_of_step(self.draft, lengths, steps))
        if self.command.features == "replay":
            held = max(sum(self.lengths[d] for d in update.buffer) for update in self.updates)
            # features and teacher, in 2 bytes each; validation has a buffer of its own
            needed += 2 * held * self.draft.config.hidden_size * (2 + 2)
        free = free_memory(self.device)
        if needed > free:
            raise InputError(
                f"a micro-step of {largest:,} tokens needs about {needed / 1e9:.1f} GB and "
                f"{self.device.type} has {free / 1e9:.1f} GB free: lower --micro-batch-size and "
                "raise --gradient-accumulation-steps by the same factor "
                "(machine.gradient_accumulation_steps), or lower --maximum-model-length "
                "or --replay-documents"
            )

    def _fitted_pairs(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """This rank's share of the counted pairs to which the first weights are fitted."""
        documents, total = [], 0
        for document in self.updates[0].buffer:
            if total < FITTED_POSITIONS:
                documents.append(document)
                total += self.train.number_counted([document])
        self.train.features.prepare(self.updates[0].buffer)
        for document in documents[self.rank :: self.world]:
            batch = self.train.batch([document], self.command, epoch=None)
            at = self._there(batch.counted)
            embeddings = self.verifier.embedding[batch.next_tokens[at]]
            features = batch.features[at]
            yield embeddings.float(), features.float(), batch.targets.float()

    def _announce(self) -> None:
        share = self.end / self.total
        print(
            f"train: {len(self.train.tokens)} documents, "
            f"{self.global_batch} in an update, {self.end} updates, "
            f"attention {self.command.attn} as chosen ({BACKENDS[self.command.attn]}), "
            f"draft in {self.compute_dtype}"
            + (" and compiled" if self.command.compile else "")
            + (f", {share:.0%} of the schedule used" if share < 1 else "")
            + (f", resumed at update {self.state.update}" if self.state.update else ""),
            file=sys.stderr,
            flush=True,
        )

    def _update(self, update: int) -> Tensor:
        """One optimizer step. Returns this rank's sums: regression, classification, agreements
        and the loss, and (on every rank the same) masked tokens and gradient norm: float64 [6]."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(update)
        now = self.updates[update]
        self.train.features.prepare(now.buffer)
        counted = self.train.number_counted(now.documents)
        totals = torch.zeros(4, dtype=torch.float64, device=self.device)
        for batch in self._batches(update):
            steps = list(self._losses(batch))
            weighted = [
                self.command.v_w * sums.regression + self.command.p_w * sums.classification
                for sums in steps
            ]
            # the update's sum over its GLOBAL count, so no split of it changes the gradient
            loss = torch.stack(weighted).mean() / max(1, counted)
            loss.backward()
            totals += torch.stack([value.detach().double() for value in (*steps[0], loss)])
        gradients = self._whole_gradients()
        norm = torch.nn.utils.get_total_norm(gradients)
        self._clip(gradients, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        shared = torch.stack([torch.tensor(float(counted), device=self.device), norm])
        return torch.cat([totals, shared.double()])

    def _learning_rate(self, update: int) -> float:
        return self.command.learning_rate * schedule(update, self.warmup, self.total)

    def _clip(self, gradients: list[Tensor], norm: Tensor) -> None:
        bound = self.command.grad_clip
        if self.command.grad_clip_form == "norm":
            torch.nn.utils.clip_grads_with_norm_(self.draft.parameters(), bound, norm)
            return
        for gradient in gradients:  # one pass over each, where clip_grad_value_ makes two
            gradient.clamp_(-bound, bound)

    def _batches(self, update: int) -> Iterator[Batch]:
        """This rank's micro-steps of an update. With `ahead`, a thread makes the batch after the
        current one meanwhile, if its features are there: gathering and copying them to a GPU takes
        no time from it then. (On a CPU there is no one to wait.)"""
        steps = self._micro_steps(update)
        after = self._micro_steps(update + 1) if update + 1 < self.end else []
        if after and self.updates[update + 1].buffer != self.updates[update].buffer:
            after = []
        for step, following in zip(steps, [*steps[1:], *after[:1], None], strict=False):
            made = self.made.pop(step, None)
            batch = made.result() if made else self._make(step)
            if self.ahead and following is not None:
                self.made[following] = self.maker.submit(self._make, following)
            yield batch

    def _micro_steps(self, update: int) -> list[tuple[int, tuple[int, ...]]]:
        """This rank's parts of an update: epoch and documents of each."""
        now = self.updates[update]
        slots = balance_by_tokens(now.documents, self.lengths, self.world * self.micro_steps)
        mine = slots[self.rank * self.micro_steps : (self.rank + 1) * self.micro_steps]
        return [(now.epoch, tuple(documents)) for documents in mine if documents]

    def _make(self, step: tuple[int, tuple[int, ...]]) -> Batch:
        epoch, documents = step
        return self.train.batch(documents, self.command, epoch)

    def _whole_gradients(self) -> list[Tensor]:
        """Every parameter's gradient, summed over ranks; a rank without documents adds zeros."""
        for parameter in self.draft.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if self.world > 1:
                distributed.all_reduce(parameter.grad)
        return [parameter.grad for parameter in self.draft.parameters()]

    def _predictions(self, batch: Batch, steps: int) -> Iterator[Tensor]:
        """Predicted features [T, H], from the batch's and then `steps` times from the draft's."""
        return rollout(
            self.draft, batch.features, self.verifier.embedding[batch.next_tokens].float(),
            self._there(batch.positions), batch.lengths, self.command.attn, steps,
            None if self.compute_dtype == torch.float32 else self.compute_dtype,
        )  # fmt: skip

    def _losses(self, batch: Batch) -> Iterator[Sums]:
        """The loss of the step on true features and of each rollout step."""
        predictions = self._predictions(batch, self.command.rollout_steps)
        for step, predicted in enumerate(predictions):
            reached = batch.reached(step)
            at, rows = self._there(batch.counted[reached]), self._there(reached)
            teacher = Teacher(*(values[rows] for values in batch.teacher))
            yield eagle_loss(predicted[at], batch.targets[rows], teacher, self.trained)

    def _there(self, indices: Tensor) -> Tensor:
        """Indices made on the CPU, on the device."""
        return indices.to(self.device, non_blocking=True)

    def _speed(self, rows: list[dict], seconds: float) -> dict[str, float]:
        """What the last few updates did in their wall time, without features computed before."""
        tokens, masked = (sum(row[name] for row in rows) for name in ("tokens", "masked_tokens"))
        vocabulary = len(self.trained.head)
        done = operations(self.draft, vocabulary, self.command.rollout_steps, tokens, masked)
        if self.command.features == "replay":
            once = operations_of_features(self.verifier, vocabulary, tokens, masked)
            done += once / self.command.replay_passes
        speed = {
            "step_tokens_per_second": tokens / seconds,
            "step_tflops": done / 1e12 / seconds / self.world,
            "peak_memory_mb": peak_memory_mb(self.device),
        }
        if self.command.peak_tflops:
            speed["flop_utilization"] = speed["step_tflops"] / self.command.peak_tflops
        return speed

    def _look(self, waiting: list[tuple[int, Tensor]]) -> str:
        """Put the waiting updates' losses into the history; returns the newest for the eye."""
        seconds = time.monotonic() - self.began
        sums = torch.stack([sums[:4] for _, sums in waiting])
        if self.world > 1:
            distributed.all_reduce(sums)
        shared = torch.stack([sums[4:] for _, sums in waiting]).tolist()
        for (update, _), row, (masked, norm) in zip(waiting, sums.tolist(), shared, strict=True):
            regression, classification, agreements = (value / max(1, masked) for value in row[:3])
            loss = row[3]
            if not math.isfinite(loss) or not math.isfinite(norm):
                documents = ", ".join(map(str, self.updates[update].documents))
                raise InputError(
                    f"update {update}: the loss is {loss}, the gradient norm {norm}, on documents "
                    f"{documents} (numbered as in the token file); the draft is lost from there "
                    "on. Lower the learning rate, or check those documents' features. The states "
                    f"and the best draft before it stay in {self.run_folder}"
                )
            learning_rate = self._learning_rate(update)
            documents = self.updates[update].documents
            entry = {
                "update": update,
                "loss": loss,
                "regression": regression,
                "classification": classification,
                "top1": agreements,
                "learning_rate": learning_rate,
                "gradient_norm": norm,
                "tokens": sum(self.lengths[document] for document in documents),
                "masked_tokens": masked,
                "seconds": seconds,
            }
            self.state.history.append(entry)
        speed = self._speed(self.state.history[-len(waiting) :], seconds - self.looked)
        self.looked = seconds
        done = sum(row["masked_tokens"] for row in self.state.history)
        scalars = {
            "train/loss": loss,
            "train/regression": regression,
            "train/classification": classification,
            "train/top1": agreements,
            "train/learning_rate": learning_rate,
            "train/gradient_norm": norm,
            "train/masked_tokens_per_second": done / (seconds + self.train.features.seconds),
            **{f"train/{name}": value for name, value in speed.items()},
        }
        self.state.history[-1] |= speed
        self.clearml.scalars(scalars, update)
        return f"loss {loss:.3f}, top-1 {agreements:.3f}"

    def _validate(self) -> bool:
        """Judge the draft on held-out documents, note it, and keep the draft if it is the best.

        Returns:
            False when SIGTERM came meanwhile, on any rank; nothing is recorded then.
        """
        judged = self.validation.judge(lambda: self.terminated)
        if judged is None:
            return False
        loss = judged["validation_loss"]
        if not math.isfinite(loss):
            raise InputError(
                f"update {self.state.update}: the validation loss is {loss}; lower the learning "
                f"rate. The best draft so far, if any, stays in {self.run_folder / 'best'}"
            )
        self.state.validations.append({"update": self.state.update, **judged})
        values = {f"validation/{name.removeprefix('validation_')}": judged[name] for name in judged}
        self.clearml.scalars(values, self.state.update)
        if loss < self.state.best_validation_loss:
            self.state.best_validation_loss = loss
            if self.rank == 0:
                save_draft(self.draft, self.run_folder / "best")
        self.state.seconds = self.looked = time.monotonic() - self.began
        return True
