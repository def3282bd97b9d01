"""Train an EAGLE-1 draft: the page's command.

    torchrun --nnodes=1 --nproc_per_node=1 eagle/train.py \\
        --verifier-model-path resources/verifier --dataset-path resources/sharegpt.jsonl \\
        --cpdir resources/checkpoints --epochs 1 --attn sdpa

The finished drafts stand in CPDIR/<run>/best and CPDIR/<run>/last; <run> is a hash of everything
that decides the result, so the same command started again goes on where it was stopped.
"""

import gc
import hashlib
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# On a CPU, oneDNN keeps a kernel with its scratch memory for every new shape. Training has a few
# hundred; the verifier's batches have no end of them, and with the default of 1024 a process grows
# by gigabytes. Read at the first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "384")
if __name__ == "__main__":  # started as a file: its own folder would stand in front of packages
    sys.path[0] = str(ROOT)

import torch  # noqa: E402
from torch import distributed  # noqa: E402
from transformers import PreTrainedTokenizerBase  # noqa: E402

from eagle.config import TrainConfig, parse_command  # noqa: E402
from eagle.draft.draft import Draft, draft_config  # noqa: E402
from eagle.draft.vocabulary import Vocabulary, full_vocabulary, part_of_vocabulary  # noqa: E402
from eagle.errors import InputError, one_clear_message  # noqa: E402
from eagle.files import sha256_of_file, sha256_of_folder, whole_folder, write_json  # noqa: E402
from eagle.provenance import provenance  # noqa: E402
from eagle.sharegpt.conversations import read_conversations, split  # noqa: E402
from eagle.template.choice import choose_template  # noqa: E402
from eagle.template.template import own_template_hash  # noqa: E402
from eagle.tokens.token_set import TokenSet, read_manifest  # noqa: E402
from eagle.tokens.tokenization import tokenize  # noqa: E402
from eagle.tokens.tokenizer import load_tokenizer, stop_token_ids, tokenizer_hash  # noqa: E402
from eagle.tracking import ClearML, Progress  # noqa: E402
from eagle.training.batch import Split  # noqa: E402
from eagle.training.feature_cache import CachedFeatures  # noqa: E402
from eagle.training.features import Features, ReplayedFeatures  # noqa: E402
from eagle.training.initialization import initialize_random  # noqa: E402
from eagle.training.trainer import Trainer  # noqa: E402
from eagle.verifier.verifier import Verifier  # noqa: E402

# Fields that cannot change the trained weights: paths are replaced by hashes of what they hold.
NOT_IN_THE_RUN = {
    "verifier_model_path", "dataset_path", "eagle_config_path", "cpdir", "output", "save",
    "clearml_project", "clearml_task", "progress_seconds", "verifier_sharding", "peak_tflops",
}  # fmt: skip
RESULTS = ("metrics.json", "provenance.json", "history.csv", "validations.csv")
"""What a finished run leaves beside its drafts."""
HELD_OUT = 0.05
"""Share of a JSON-lines data set that is held out to validate."""


def train(command: TrainConfig) -> Path | None:
    """Run this process's part of the training.

    Returns:
        The run folder with best, last, metrics.json, provenance.json, history.csv and
        validations.csv; None when SIGTERM ended it early.

    Raises:
        InputError: something in the command cannot be used.
    """
    with _process_group() as (device, world):
        try:
            return _train(command, device, world)
        except torch.cuda.OutOfMemoryError as error:
            raise InputError(
                f"the GPU's memory is full ({str(error).splitlines()[0]}); lower "
                "--micro-batch-size and raise --gradient-accumulation-steps by the same factor, "
                "or lower --maximum-model-length"
            ) from None
        except _compile_errors(command) as error:
            raise InputError(
                "--compile = true (train.compile): torch.compile failed here "
                f"({str(error).splitlines()[0]}); install what it asks for, or leave it out"
            ) from None


def _train(command: TrainConfig, device: torch.device, world: int) -> Path | None:
    if command.verifier_sharding == "fsdp2" and world == 1:
        raise InputError(
            "--verifier-sharding = fsdp2: there is one process to shard over; start more "
            "(--nproc_per_node, machine.processes) or leave the sharding out"
        )
    tokenizer = load_tokenizer(command.verifier_model_path)
    train_tokens, validation_tokens, data_hash = load_documents(command, tokenizer)
    verifier = Verifier.load(
        command.verifier_model_path,
        getattr(torch, command.verifier_model_dtype),
        device,
        command.attn,
        sharded=command.verifier_sharding == "fsdp2",
    )
    _check_vocabulary(command, train_tokens, verifier)
    head = verifier.head.to(getattr(torch, command.verifier_model_lm_head_dtype))
    whole = trained = full_vocabulary(head)
    if command.softmax_vocabulary is not None:
        said = train_tokens.by_frequency(len(head))[: command.softmax_vocabulary]
        trained = part_of_vocabulary(head, said)
    config = draft_config(command.eagle_config_path, verifier.config)
    hashes = {
        "verifier": sha256_of_folder(command.verifier_model_path),
        "data": data_hash,
        "draft_config": _sha256(config.to_json_string()),
        "code": _code_hash(),
    }
    parameters = command.model_dump(mode="json", exclude=NOT_IN_THE_RUN) | {"world": world}
    run_folder = command.cpdir / _sha256(repr((sorted(parameters.items()), hashes)))[:16]
    _make_writable(run_folder)

    draft = Draft(config)
    initialize_random(draft, command.seed)
    # what an offline session leaves stays where the container's volume is
    os.environ.setdefault("CLEARML_CACHE_DIR", str(command.cpdir.resolve() / "clearml"))
    clearml = ClearML(command.clearml_project, command.clearml_task, parameters)
    trainer = Trainer(
        command,
        draft.to(device),
        verifier,
        Split.make(
            train_tokens,
            _features(command, train_tokens, verifier, trained, hashes["verifier"]),
            command.mask_alignment,
            verifier.stop_token_ids,
        ),
        Split.make(
            validation_tokens,
            _features(command, validation_tokens, verifier, whole, hashes["verifier"]),
            "decoding",  # what the draft meets in serving, whatever the training counts
            verifier.stop_token_ids,
        ),
        trained,
        whole,
        run_folder,
        clearml,
    )
    finished = trainer.run()
    if not finished and trainer.rank == 0:
        print(
            f"train: ended by SIGTERM after update {trainer.state.update}; the same command goes "
            f"on from there ({run_folder})",
            file=sys.stderr,
            flush=True,
        )
    if finished and trainer.rank == 0:
        seconds = trainer.state.seconds + trainer.train.features.seconds
        write_json(run_folder / "metrics.json", trainer.metrics())
        write_json(run_folder / "provenance.json", provenance(parameters, hashes, seconds))
        if command.output is not None:
            with whole_folder(command.output) as partial:
                for name in ("best", "last"):
                    shutil.copytree(run_folder / name, partial / name)
                for name in RESULTS:
                    shutil.copyfile(run_folder / name, partial / name)
        print(f"train: wrote {run_folder}", flush=True)
    clearml.close()
    return run_folder if finished else None


def load_documents(
    command: TrainConfig, tokenizer: PreTrainedTokenizerBase
) -> tuple[TokenSet, TokenSet, str]:
    """Training and validation documents, and the hash of the data they come from.

    `dataset_path` is the tokenise stage's folder, or JSON lines of conversations, which go through
    the same code with the verifier's own template and 5% held out.

    Raises:
        InputError: no such data, made with another tokenizer, or nothing in it to learn from.
    """
    path, length = command.dataset_path, command.maximum_model_length
    if path.is_dir():
        manifest = read_manifest(path)
        for what, key, here in (
            ("tokenizer", "tokenizer_sha256", tokenizer_hash(command.verifier_model_path)),
            ("chat template", "verifiers_template_sha256", own_template_hash(tokenizer)),
        ):
            made_with = manifest[key]
            if made_with != here:
                raise InputError(
                    f"{path}: was made with another {what} ({made_with[:12]}) than the verifier's "
                    f"({here[:12]} in {command.verifier_model_path}): run tokenize_dataset again"
                )
        sets = [TokenSet.load(path / f"{name}.safetensors") for name in ("train", "validation")]
        return *(tokens.limited(length) for tokens in sets), sha256_of_folder(path)
    stop = stop_token_ids(command.verifier_model_path)
    template = choose_template(None, tokenizer, stop).text
    sets = []
    for conversations in split(read_conversations(path), HELD_OUT):
        progress = Progress(
            "tokenize", len(conversations), "conversations", command.progress_seconds
        )
        with progress:
            sets.append(tokenize(conversations, tokenizer, template, length, progress)[0])
    return *sets, _sha256(sha256_of_file(path) + template)


def _features(
    command: TrainConfig,
    tokens: TokenSet,
    verifier: Verifier,
    vocabulary: Vocabulary,
    verifier_hash: str,
) -> Features:
    if command.features == "replay":
        return ReplayedFeatures(tokens, verifier, vocabulary)
    return CachedFeatures(tokens, verifier, vocabulary, verifier_hash, command.progress_seconds)


@contextmanager
def _process_group():
    """Join torchrun's processes; yields (device, number of processes)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local_rank >= gpus:
            raise InputError(
                f"process {local_rank} has no GPU: this machine shows {gpus}; start as many "
                "processes as GPUs (--nproc_per_node, machine.processes)"
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if world > 1:
        # a single agent without --standalone keeps one store over its restarts, where the processes
        # that come new would find the addresses of those that died; several agents count their
        # restarts apart and make a store for each round
        store, rank, _ = next(distributed.rendezvous("env://"))
        alone = os.environ.get("LOCAL_WORLD_SIZE") == str(world)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "of several"
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=distributed.PrefixStore(f"attempt {attempt}", store),
            rank=rank,
            world_size=world,
        )
    yield device, world
    if world > 1:
        # every rank's last all-reduce must be freed before the group is, or gloo's thread and
        # the interpreter wait for each other; the caller has let go of what holds the group
        distributed.barrier()
        distributed.destroy_process_group()


def _check_vocabulary(command: TrainConfig, tokens: TokenSet, verifier: Verifier) -> None:
    largest, size = int(tokens.token_ids.max()), len(verifier.embedding)
    if largest >= size:
        raise InputError(
            f"{command.dataset_path}: has token {largest}, the verifier's vocabulary ends at "
            f"{size - 1}; the data was made for another model"
        )


def _compile_errors(command: TrainConfig) -> tuple[type[Exception], ...]:
    if not command.compile:
        return ()
    from torch._dynamo.exc import TorchDynamoException  # a second to import

    return (TorchDynamoException,)


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--cpdir: {folder} cannot be written: {error.strerror}") from None


def _code_hash() -> str:
    """Hash of the project's code in this process, but for what cannot change a result."""
    left_out = {"eagle.config", "eagle.tracking"}
    files = {
        module.__file__
        for name, module in sys.modules.items()
        if name.startswith("eagle.") and name not in left_out
    }
    return _sha256("".join(sha256_of_file(Path(file)) for file in sorted(files | {__file__})))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    # what was imported stays: the collector need not look at it again, not even at the end, where
    # that would take a second
    gc.freeze()
    with one_clear_message():
        folder = train(parse_command(TrainConfig, sys.argv[1:], "eagle/train.py"))
        sys.exit(0 if folder else 128 + signal.SIGTERM)
