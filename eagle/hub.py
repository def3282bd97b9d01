"""Where models and data come from: an installed package, a local folder, or the hub."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from eagle.errors import InputError
from eagle.files import sha256_of_file

# Weights that cannot run code, and no code.
MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "LICENSE*", "NOTICE*"]
# Other formats of the same weights in subfolders, and Mistral's own beside transformers' layout.
NOT_FETCHED = ["*/*", "consolidated*"]


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


def snapshot(
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
