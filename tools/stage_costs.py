"""Time and disk of every stage, and the memory of training, from sizes and rates alone."""

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from eagle.config import Params
from eagle.draft.automatic import automatic_size
from eagle.evaluation import work
from eagle.evaluation.automatic import resolved
from eagle.questions import HUB_QUESTIONS, select_questions
from eagle.training.memory import CPU_BLOCKS, Sizes, gpu_blocks
from scripts.train import automatic_batch
from tools.device_rates import Rates
from tools.model_shape import Shape
from tools.token_estimate import Tokens

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CACHE = Path(".cache/eagle")
BENCH_QUESTIONS, TURNS_OF_A_QUESTION = 80, 2  # of MT-bench; in other sets each has one turn
STARTING = 10.0
"""Seconds in which Python and torch start, models are loaded and results are written."""
# Bytes a second: from a hub (a guess: it is the network's), on a disk, dequantized on a CPU.
FROM_HUB, ON_DISK, DEQUANTIZED = 50e6, 500e6, 22e6
# Megabytes a second of conversations on two cores: benchmarks/results/prepare_throughput.json.
PREPARED, TOKENIZED = 37.0, 4.2
KEPT_STATES = 2
LAYERS_OF_AN_UPDATE = 50
"""What the host launches for an update, in layers of decoding: 20 ms on that H200."""


@dataclass(frozen=True)
class Costs:
    """What params.yaml asks for on one machine."""

    params: Params
    shape: Shape
    tokens: Tokens
    rates: Rates

    @property
    def draft(self) -> Shape:
        return self.shape.draft(self.params.train.eagle_config_path)

    @property
    def batch(self) -> int:
        """Conversations in an update."""
        stated = self.params.train.global_batch_size
        return automatic_batch(self.tokens.train_documents) if stated == "auto" else stated

    @property
    def updates(self) -> int:
        train = self.params.train
        of_epoch = math.ceil(self.tokens.train_documents / self.batch)
        return min(train.max_updates or math.inf, of_epoch * train.epochs)

    @property
    def epochs(self) -> float:
        """Passes over the training documents."""
        return self.updates * self.batch / self.tokens.train_documents

    @property
    def validations(self) -> int:
        every = self.params.train.validation_updates
        if every is None:
            return math.ceil(self.epochs)
        return math.ceil(self.updates / every)

    @property
    def softmax(self) -> int:
        """Tokens of training's softmax."""
        size = automatic_size(self.params.train.softmax_vocabulary, self.rates.device)
        return min(size or math.inf, self.shape.vocabulary)

    # -- seconds ------------------------------------------------------------------------------

    def seconds(self) -> dict[str, float]:
        """Of every stage that takes time."""
        kind = self.params.verifier.source.partition(":")[0]
        size = self.shape.weights * 2
        rate = {"hub": FROM_HUB, "path": ON_DISK, "package": DEQUANTIZED}[kind]
        threads = self.params.machine.data_processes / 2
        text = self.tokens.megabytes * self.params.sharegpt.frac if self.params.sharegpt.frac else 1
        return {
            "download_model": 2 + size / rate,
            "prepare_sharegpt": 1 + self.tokens.megabytes / PREPARED / threads,
            "regenerate_replies": self._regenerate(),
            "validate_template": 3 + 0.01 * self.params.template.sample,
            "tokenize_dataset": 2 + text / TOKENIZED / threads,
            "train": sum(self.train_seconds().values()),
            "export_checkpoint": 4 + 3 * 4 * self._export_weights / ON_DISK,
            "evaluate": self._evaluate(),
            "write_report": 2,
        }

    def train_seconds(self) -> dict[str, float]:
        """Of the parts of training."""
        train, tokens, processes = self.params.train, self.tokens, self.params.machine.processes
        hidden, rates = self.shape.hidden, self.rates
        weights = self.draft.draft_weights
        steps = 1 + train.rollout_steps
        once = tokens.train if train.features == "cache" else (
            tokens.train * math.ceil(self.epochs / train.replay_passes)
        )  # fmt: skip
        forward = 2 * self.shape.layer_weights * (once + tokens.validation)
        teacher = 4 * self.softmax * hidden * once * tokens.taught / tokens.train
        update = 6 * weights * tokens.train + 4 * self.softmax * hidden * tokens.taught
        validation = tokens.validation_taught * 4 * self.shape.vocabulary * hidden
        wide = _wide(train.verifier_model_dtype)
        return {
            "start": 2 * STARTING,
            "features": (forward * wide / rates.forward + teacher / rates.update) / processes,
            "updates": max(
                self.epochs * steps * update * _wide(self._draft_dtype) / rates.update / processes,
                self.updates * self.params.machine.gradient_accumulation_steps * steps
                * LAYERS_OF_AN_UPDATE * rates.launching,
            ),
            "validations": self.validations * (3 + validation / rates.head / processes),
        }  # fmt: skip

    @property
    def _draft_dtype(self) -> str:
        train = self.params.train
        return "bfloat16" if train.mixed_precision == "bf16" else train.eagle_dtype

    def _regenerate(self) -> float:
        if not self.params.regenerate.enabled:
            return 1.0
        said = self.tokens.taught + self.tokens.validation_taught
        wide = _wide(self.params.regenerate.dtype)
        return STARTING + 2 * self.shape.weights * wide * said / self.rates.batch

    def _evaluate(self) -> float:
        settings = self.params.evaluate
        if settings.bench in HUB_QUESTIONS:  # its questions need not be here yet
            size = BENCH_QUESTIONS if settings.questions == "auto" else settings.questions
            settings = settings.model_copy(update={"questions": size})
            settings, turns = resolved(settings, self.rates.device), size * TURNS_OF_A_QUESTION
        else:
            settings = resolved(settings, self.rates.device)
            rows = select_questions(settings.bench, settings.questions)
            turns = sum(len(row["turns"]) for row in rows)
        stated = settings.draft_length if settings.decoder == "chain" else settings.static_tree
        chooses = settings.decoder != "dynamic_tree" and stated == "auto"
        steps = work.of_all(settings, turns, self.tokens.validation, chooses)
        wide = _wide(settings.dtype)
        step = max(
            wide * 2 * self.shape.weights / self.rates.decode,
            self.shape.layers * self.rates.launching,
        )
        return 2 * STARTING + steps * step

    # -- disk ---------------------------------------------------------------------------------

    @property
    def _export_weights(self) -> int:
        """Of the official layout, which has the embedding too."""
        return self.draft.draft_weights + self.shape.vocabulary * self.shape.hidden // 2

    def disk(self) -> dict[str, float]:
        """Bytes of what is left on the disk by name, without the files of the source."""
        train, tokens, weights = self.params.train, self.tokens, self.draft.draft_weights
        every = tokens.train + tokens.validation
        kept = {
            "verifier": 2 * self.shape.weights,
            "conversations and tokens": 2e6 * tokens.megabytes + 5 * every,
            "drafts and exports": 4 * weights * 4 + 4 * self._export_weights + 2 * 2 * weights,
            "states in runs/": KEPT_STATES * 12 * weights,
        }
        if train.features == "cache":
            of_feature = BYTES[train.verifier_model_dtype] * self.shape.hidden
            of_teacher = BYTES[train.verifier_model_lm_head_dtype] * self.shape.hidden + 4
            taught = tokens.taught + tokens.validation_taught
            kept[f"feature cache in {CACHE}"] = every * of_feature + taught * of_teacher
        return kept

    # -- memory -------------------------------------------------------------------------------

    def micro_batch(self, accumulation: int) -> int:
        return self.batch // (self.params.machine.processes * accumulation)

    def sizes(self, micro_batch: int) -> Sizes:
        """What decides the memory of one training process, for its largest micro-step."""
        train, tokens, shape, draft = self.params.train, self.tokens, self.shape, self.draft
        sharded = self.params.machine.verifier_sharding == "fsdp2"
        processes = self.params.machine.processes
        lengths = tokens.lengths
        longest = [lengths[-1 - number % len(lengths)] for number in range(micro_batch)]
        cached = train.features == "cache"
        documents = tokens.train_documents + tokens.validation_documents
        share = 1 if cached else min(1, 2 * train.replay_documents / documents)
        different = min(len(set(lengths)) if micro_batch == 1 else self.updates, self.updates)
        cpu = self.rates.device == "cpu"
        return Sizes(
            device=self.rates.device,
            threads=max(1, (os.cpu_count() or 1) // processes),
            verifier_weights=round(shape.weights / (processes if sharded else 1)),
            verifier_bytes=BYTES[train.verifier_model_dtype],
            verifier_inner=shape.inner,
            vocabulary=shape.vocabulary,
            head_bytes=BYTES[train.verifier_model_lm_head_dtype],
            softmax_vocabulary=self.softmax,
            blocks=CPU_BLOCKS if cpu else gpu_blocks(round(self.rates.memory)),
            hidden=shape.hidden,
            draft_weights=draft.draft_weights,
            draft_inner=draft.inner,
            draft_keys=draft.key_heads * draft.head_width,
            compute_bytes=BYTES[self._draft_dtype],
            rollout_steps=train.rollout_steps,
            lengths=longest,
            different_steps=different,
            kept_tokens=round(share * (tokens.train + tokens.validation)),
            taught_tokens=round(share * (tokens.taught + tokens.validation_taught)),
            cached=cached,
            verifier_runs=True,
        )


def free_disk() -> float:
    return shutil.disk_usage(".").free


def _wide(dtype: str) -> float:
    """How much longer products take in this precision than in one of 16 bits."""
    return 2.0 if dtype == "float32" else 1.0
