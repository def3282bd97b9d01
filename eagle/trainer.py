"""Training of a draft: order of documents, updates, validation, checkpoints.

Shapes: T tokens of a micro-step side by side, M counted positions among them, H hidden.
"""

import hashlib
import math
import random
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from eagle.checkpoint import RunState, save_draft
from eagle.config import TrainCommand
from eagle.draft import Draft, attend_within_documents
from eagle.errors import InputError
from eagle.features import Features
from eagle.files import write_text
from eagle.initialization import initialize_least_squares
from eagle.loss import Sums, eagle_loss
from eagle.tokens import TokenSet
from eagle.tracking import ClearML, Progress
from eagle.verifier import Verifier

# Updates between looks at the losses: each look makes the host wait for the device.
LOOK_EVERY = 10
# Counted positions to which least squares fits the first weights: many per unknown of a row.
FITTED_POSITIONS = 50_000


@dataclass
class Split:
    """Training or validation documents with their features and counted positions."""

    tokens: TokenSet
    features: Features
    counted: list[Tensor]
    """A bool tensor [L - 1] a document: which (input, target) pairs count."""

    @classmethod
    def make(
        cls, tokens: TokenSet, features: Features, alignment: str, stop_token_ids: list[int]
    ) -> "Split":
        """Raises: InputError: no position counts."""
        counted = [tokens.counted(d, alignment, stop_token_ids) for d in range(len(tokens))]
        if not any(positions.any() for positions in counted):
            raise InputError(
                f"none of {len(tokens)} documents has a position that counts with mask_alignment "
                f"= {alignment}: check the data's replies and the template's generation markers"
            )
        return cls(tokens, features, counted)

    def number_counted(self, documents: list[int]) -> int:
        return sum(int(self.counted[document].sum()) for document in documents)


@dataclass
class Batch:
    """Pairs of one or more documents side by side."""

    features: Tensor
    """Inputs f_t [T, H], with noise when training."""
    next_tokens: Tensor
    """Token t + 1, int64 [T]."""
    targets: Tensor
    """f_{t+1} at counted positions, without noise [M, H]."""
    counted: Tensor
    """Counted positions, int64 [M]."""
    lengths: list[int]
    """Pairs of each document; they add up to T."""


def updates_of(
    documents: int, epochs: int, global_batch: int, seed: int
) -> Iterator[tuple[int, list[int]]]:
    """Every update's epoch and documents, in an order drawn anew each epoch.

    The order depends on nothing but the arguments, so a resumed run or one on more processes sees
    the same updates. The last update of an epoch may be smaller.
    """
    for epoch in range(epochs):
        order = list(range(documents))
        random.Random(f"{seed} {epoch}").shuffle(order)
        for start in range(0, documents, global_batch):
            yield epoch, order[start : start + global_batch]


def deal(documents: list[int], lengths: list[int], slots: int) -> list[list[int]]:
    """Spread documents over slots (processes x micro-steps) with about equal tokens in each.

    Longest first, each to the emptiest slot; a slot stays empty only when there are fewer
    documents than slots.
    """
    dealt: list[list[int]] = [[] for _ in range(slots)]
    filled = [0] * slots
    for document in sorted(documents, key=lambda d: (-lengths[d], d)):
        slot = filled.index(min(filled))
        dealt[slot].append(document)
        filled[slot] += lengths[document]
    return dealt


def schedule(update: int, warmup: int, total: int) -> float:
    """Share of the peak learning rate in a 0-based update: linear up, then linear down to zero."""
    if update < warmup:
        return (update + 1) / (warmup + 1)
    return max(0.0, (total - update) / max(1, total - warmup))


def input_noise(shape: tuple[int, int], command: TrainCommand, epoch: int, document: int) -> Tensor:
    """Uniform noise [L, H] for a document's input features.

    Drawn from (seed, epoch, document) alone, so neither the number of processes nor what shares a
    micro-step changes it. "length_scaled" is the official code's 512 / L.
    """
    digest = hashlib.sha256(f"{command.seed} {epoch} {document}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    noise = torch.empty(shape).uniform_(command.noise_low, command.noise_high, generator=generator)
    return noise * (512 / shape[0] if command.noise_form == "length_scaled" else 1.0)


class Trainer:
    """One process's part of a training run."""

    def __init__(
        self,
        command: TrainCommand,
        draft: Draft,
        verifier: Verifier,
        train: Split,
        validation: Split,
        run_folder: Path,
        clearml: ClearML,
    ):
        self.command, self.draft, self.verifier = command, draft, verifier
        self.train, self.validation = train, validation
        self.run_folder, self.clearml = run_folder, clearml
        self.rank, self.world = 0, 1
        if distributed.is_initialized():
            self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        self.device = verifier.head.device
        self.head = verifier.head.to(getattr(torch, command.verifier_model_lm_head_dtype))
        compute = "bfloat16" if command.mixed_precision == "bf16" else command.eagle_dtype
        self.compute_dtype = getattr(torch, compute)
        self.optimizer = torch.optim.AdamW(
            draft.parameters(),
            lr=command.learning_rate,
            betas=(command.b1, command.b2),
            weight_decay=command.weight_decay,
            fused=True,
        )
        self.state_path = run_folder / "state.pt"
        self.state = RunState.resume(self.state_path, draft, self.optimizer)
        if command.initialization == "least_squares" and self.state.update == 0:
            initialize_least_squares(draft, self._fitted_batches)
        self.model = DistributedDataParallel(draft) if self.world > 1 else draft
        self.lengths = train.tokens.bounds.diff().tolist()
        self.micro_steps = command.gradient_accumulation_steps
        self.global_batch = command.micro_batch_size * self.micro_steps * self.world
        self.all_updates = list(
            updates_of(len(train.tokens), command.epochs, self.global_batch, command.seed)
        )
        self.warmup = command.num_warmup_steps // self.world
        scheduled = command.num_training_steps
        self.total = scheduled // self.world if scheduled else len(self.all_updates)
        self.end = min(self.total, len(self.all_updates))
        if self.warmup >= self.total:
            raise InputError(
                f"the warm-up of {self.warmup} updates is not shorter than the schedule of "
                f"{self.total} updates; lower the warm-up or train longer"
            )

    def run(self) -> None:
        """Train to the end from wherever the run folder's state stands; write best and last.

        Raises:
            InputError: the loss is no longer a finite number.
        """
        if self.rank == 0:
            self._announce()
        started = time.monotonic() - self.state.seconds
        waiting: list[tuple[int, Tensor]] = []
        every = self.command.validation_updates or math.ceil(
            len(self.train.tokens) / self.global_batch
        )
        left = self.end - self.state.update
        progress = Progress("train", left, "updates", self.command.progress_seconds)
        with progress:
            for update in range(self.state.update, self.end):
                epoch, documents = self.all_updates[update]
                waiting.append((update, self._update(update, epoch, documents)))
                self.state.update = update + 1
                last = self.state.update == self.end
                note = ""
                validate = last or self.state.update % every == 0
                save = last or self.state.update % self.command.save == 0
                if len(waiting) == LOOK_EVERY or validate or save:  # a state holds all its losses
                    note = self._look(waiting, time.monotonic() - started)
                    waiting = []
                if validate:
                    self._validate()
                self.state.seconds = time.monotonic() - started
                if save and self.rank == 0:
                    self.state.save(self.state_path, self.draft, self.optimizer)
                progress.advance(note=note)
        if self.rank == 0:
            save_draft(self.draft, self.run_folder / "last")
            for name in ("history", "validations"):
                table = pd.DataFrame(getattr(self.state, name))
                write_text(self.run_folder / f"{name}.csv", table.to_csv(index=False))

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

    def _fitted_batches(
        self,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, list[int]]]:
        """This rank's share of the training pairs to which the first weights are fitted."""
        documents, total = [], 0
        while len(documents) < len(self.train.tokens) and total < FITTED_POSITIONS:
            documents.append(len(documents))
            total += self.train.number_counted(documents[-1:])
        for document in documents[self.rank :: self.world]:
            batch = self._batch(self.train, [document], epoch=None)
            embeddings = self.verifier.embedding[batch.next_tokens].float()
            targets = batch.targets.float()
            yield embeddings, batch.features, batch.counted, targets, batch.lengths

    def _announce(self) -> None:
        share = self.end / self.total
        print(
            f"train: {len(self.train.tokens)} documents, "
            f"{self.global_batch} in an update, {self.end} updates, "
            f"attention {self.command.attn}, draft in {self.compute_dtype}"
            + (f", {share:.0%} of the schedule used" if share < 1 else "")
            + (f", resumed at update {self.state.update}" if self.state.update else ""),
            file=sys.stderr,
            flush=True,
        )

    def _update(self, update: int, epoch: int, documents: list[int]) -> Tensor:
        """One optimizer step. Returns this rank's sums: regression, classification, agreements,
        and (on every rank the same) masked tokens and gradient norm: float64 [5]."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.command.learning_rate * schedule(update, self.warmup, self.total)
        counted = self.train.number_counted(documents)
        slots = deal(documents, self.lengths, self.world * self.micro_steps)
        mine = slots[self.rank * self.micro_steps : (self.rank + 1) * self.micro_steps]
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        for step, held in enumerate(mine):
            # without documents a rank still takes part in the gradient's all-reduce, with zeros
            batch = self._batch(self.train, held or documents[:1], epoch)
            if not held:
                batch.counted, batch.targets = batch.counted[:0], batch.targets[:0]
            local = self.world > 1 and step < self.micro_steps - 1
            with self.model.no_sync() if local else nullcontext():
                sums = self._loss(self.model, batch)
                # the update's sum over its GLOBAL count; DDP averages over ranks, hence x world
                loss = self.command.v_w * sums.regression + self.command.p_w * sums.classification
                (loss * (self.world / max(1, counted))).backward()
            totals += torch.stack([value.detach().double() for value in sums])
        gradients = [parameter.grad for parameter in self.draft.parameters()]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grad_value_(self.draft.parameters(), self.command.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        shared = torch.stack([torch.tensor(float(counted), device=self.device), norm])
        return torch.cat([totals, shared.double()])

    def _batch(self, split: Split, documents: list[int], epoch: int | None) -> Batch:
        """Pairs of `documents`; noise on the inputs unless `epoch` is None."""
        features, next_tokens, targets, counted, lengths = [], [], [], [], []
        offset = 0
        spans = [split.tokens.span(document) for document in documents]
        whole = split.features.of(documents).split([span.stop - span.start for span in spans])
        for document, span, states in zip(documents, spans, whole, strict=True):
            pairs = len(states) - 1
            inputs = states[:-1].float()
            if epoch is not None:
                noise = input_noise(tuple(inputs.shape), self.command, epoch, document)
                inputs = inputs + noise.to(self.device)
            positions = split.counted[document].nonzero()[:, 0].to(self.device)
            features.append(inputs)
            next_tokens.append(split.tokens.token_ids[span][1:])
            targets.append(states[1:][positions])
            counted.append(positions + offset)
            lengths.append(pairs)
            offset += pairs
        return Batch(
            torch.cat(features),
            torch.cat(next_tokens).long().to(self.device),
            torch.cat(targets),
            torch.cat(counted),
            lengths,
        )

    def _loss(self, model: nn.Module, batch: Batch) -> Sums:
        positions = torch.cat([torch.arange(n, device=self.device) for n in batch.lengths])
        embeddings = self.verifier.embedding[batch.next_tokens].float()
        attend = attend_within_documents(batch.lengths, self.command.attn)
        with torch.autocast(
            self.device.type, self.compute_dtype, enabled=self.compute_dtype != torch.float32
        ):
            predicted = model(batch.features, embeddings, positions, attend)
        return eagle_loss(predicted[batch.counted], batch.targets, self.head)

    def _look(self, waiting: list[tuple[int, Tensor]], seconds: float) -> str:
        """Put the waiting updates' losses into the history; returns the newest for the eye."""
        sums = torch.stack([sums[:3] for _, sums in waiting])
        if self.world > 1:
            distributed.all_reduce(sums)
        shared = torch.stack([sums[3:] for _, sums in waiting]).tolist()
        for (update, _), row, (masked, norm) in zip(waiting, sums.tolist(), shared, strict=True):
            regression, classification, agreements = (value / max(1, masked) for value in row)
            loss = self.command.v_w * regression + self.command.p_w * classification
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise InputError(
                    f"update {update}: the loss is {loss}, the gradient norm {norm}; the draft "
                    "is lost from there on. Lower the learning rate, or check the verifier's "
                    f"features. The best draft so far stays in {self.run_folder / 'best'}"
                )
            learning_rate = self.command.learning_rate * schedule(update, self.warmup, self.total)
            entry = {
                "update": update,
                "loss": loss,
                "regression": regression,
                "classification": classification,
                "top1": agreements,
                "learning_rate": learning_rate,
                "gradient_norm": norm,
                "masked_tokens": masked,
                "seconds": seconds,
            }
            self.state.history.append(entry)
        done = sum(row["masked_tokens"] for row in self.state.history)
        scalars = {
            "train/loss": loss,
            "train/regression": regression,
            "train/classification": classification,
            "train/top1": agreements,
            "train/learning_rate": learning_rate,
            "train/gradient_norm": norm,
            "train/masked_tokens_per_second": done / (seconds + self.train.features.seconds),
        }
        self.clearml.scalars(scalars, update)
        return f"loss {loss:.3f}, top-1 {agreements:.3f}"

    @torch.no_grad()
    def _validate(self) -> None:
        """Loss and top-1 without noise on decoding-aligned positions; keeps the best draft."""
        tokens = self.validation.tokens
        documents = list(range(len(tokens)))
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        for document in documents[self.rank :: self.world]:
            batch = self._batch(self.validation, [document], epoch=None)
            sums = self._loss(self.draft, batch)
            totals += torch.stack([value.double() for value in sums])
        if self.world > 1:
            distributed.all_reduce(totals)
        count = self.validation.number_counted(documents)
        _, loss, top1 = (totals / count).tolist()
        if not math.isfinite(loss):
            raise InputError(
                f"update {self.state.update}: the validation loss is {loss}; lower the learning "
                f"rate. The best draft so far, if any, stays in {self.run_folder / 'best'}"
            )
        row = {"update": self.state.update, "validation_loss": loss, "validation_top1": top1}
        self.state.validations.append(row)
        self.clearml.scalars({"validation/loss": loss, "validation/top1": top1}, self.state.update)
        if loss < self.state.best_validation_loss:
            self.state.best_validation_loss = loss
            if self.rank == 0:
                save_draft(self.draft, self.run_folder / "best")


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far, in MB (10^6 bytes): the GPU's, or this process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
