"""Download from the hub, upload to it, and explain its errors."""

import functools
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from eagle.errors import InputError, one_line, without_secrets
from eagle.files import sha256_of_file

# Subfolders hold other formats of the same weights; "consolidated" is Mistral's own format.
IGNORED_FILES = ["*/*", "consolidated*"]
_KEY = re.compile(r"\w[\w.-]*", re.ASCII)
"""A checksum or a commit, which name files and folders of the client's cache."""
_PATH = re.compile(r"(?!\.\.?(/|$))[^/\\\x00-\x1f]+(/(?!\.\.?(/|$))[^/\\\x00-\x1f]+)*")
"""A file's path in a repository."""


def fetch_dataset_file(source: str, revision: str | None, where: str) -> Path:
    """The local path of hub:OWNER/NAME/FILE; the file is downloaded if necessary.

    Args:
        revision: a commit; None: the newest.
        where: the parameter and its value, with which an error's message begins.

    Raises:
        InputError: no such repository, file or revision; gated; the file does not match its
            checksum; or the hub cannot be reached.
    """
    owner, name, file = source.removeprefix("hub:").split("/", 2)
    from huggingface_hub import hf_hub_download

    with hub_errors(f"{owner}/{name}", where):
        path = hf_hub_download(f"{owner}/{name}", file, repo_type="dataset", revision=revision)
    _verify_checksum(Path(path), where)
    return Path(path)


def publish(folder: Path, repository: str) -> str:
    """Upload a folder's files to a model repository in one commit.

    A repository that does not exist is created as a private one; its owner can publish it.

    Returns:
        The address of the commit.

    Raises:
        InputError: no token, no right to write to the repository, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    with hub_errors(repository, f"upload to {repository}"):
        hub.create_repo(repository, private=True, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="EAGLE-1 draft"
        )
    return str(commit.commit_url)


def snapshot(
    repository: str, revision: str | None, folder: Path, patterns: list[str], where: str
) -> None:
    """Copy the files of a model repository into `folder`, each verified by the hub's checksum.

    The download goes through the hub client's own cache: finished files survive an interruption,
    and with HF_HUB_OFFLINE=1 the cache is the only source.

    Args:
        repository: OWNER/NAME.
        revision: a commit; None: the newest.
        patterns: names of the files to copy, with wildcards.
        where: the parameter and its value, with which an error's message begins.

    Raises:
        InputError: no such repository or revision; gated; a file does not match its checksum; or
            the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(repository, where):
        cached = Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=IGNORED_FILES,
            )
        )
    for path in sorted(cached.iterdir()):  # other programs may have downloaded more files
        if any(fnmatch(path.name, pattern) for pattern in patterns):
            _verify_checksum(path, where)
            shutil.copyfile(path, folder / path.name)


def _verify_checksum(path: Path, where: str) -> None:
    """Compare a file of the hub client's cache with the checksum that the hub gave for it.

    `path` is a link to a file whose name is the checksum: SHA-256 for a large file, git's hash for
    a small one.
    """
    try:
        blob = path.readlink()
    except OSError:
        raise InputError(
            f"{where}: {path} is no symbolic link, so the hub's checksum is not known: set "
            "HF_HOME to a disk that has such links, and leave HF_HUB_DISABLE_SYMLINKS unset"
        ) from None
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        found = sha256_of_file(path)
    elif re.fullmatch("[0-9a-f]{40}", blob.name):
        content = path.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    else:
        raise InputError(
            f"{where}: {path.name}: the hub gave {blob.name!r} where its checksum is expected; "
            "a mirror must pass on the hub's ETag (HF_ENDPOINT)"
        )
    if found != blob.name:
        (path.parent / blob).unlink()
        path.unlink()
        raise InputError(
            f"{where}: {path.name} is not what the hub holds (checksum {found[:12]}, the hub's "
            f"{blob.name[:12]}); it is deleted: run this again to get it anew"
        )


@functools.cache
def _check_answers() -> None:
    """Let the hub client look at each answer before it uses the names in it.

    Its cache joins checksums, commits and paths to its own folders as they come. And its log is
    shown without secrets: it has the URLs of requests, and so the password of HF_ENDPOINT.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def client():
        checked = default_client_factory()
        hooks = checked.event_hooks
        checked.event_hooks = hooks | {"response": [*hooks["response"], _check_names]}
        return checked

    set_client_factory(client)
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_log_without_secrets)


def _log_without_secrets(record: logging.LogRecord) -> bool:
    record.msg, record.args = without_secrets(record.getMessage()), ()
    return True


def _check_names(response) -> None:
    """Raises: _BadAnswer: a name in an answer of the hub could lead out of the cache."""
    if response.request.method == "HEAD":
        etag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag", "0")
        _check_name("checksum", etag.removeprefix("W/").strip('"'), _KEY)
        _check_name("commit", response.headers.get("X-Repo-Commit", "0"), _KEY)
    elif response.request.method == "GET" and "/api/" in response.request.url.path:
        if response.status_code != 200:
            return
        response.read()
        answer = response.json()
        for entry in answer if isinstance(answer, list) else [answer]:
            _check_name("commit", entry.get("sha", "0"), _KEY)
            _check_name("file name", entry.get("path", "0"), _PATH)
            _check_name("checksum", (entry.get("lfs") or {}).get("oid", "0"), _KEY)


class _BadAnswer(Exception):
    """The hub gave a name that could lead out of the cache."""


def _check_name(kind: str, name: object, allowed: re.Pattern[str]) -> None:
    if not isinstance(name, str) or not allowed.fullmatch(name):
        raise _BadAnswer(f"the hub gave the {kind} {name!r}")


@contextmanager
def hub_errors(repository: str, where: str) -> Iterator[None]:
    """Turn exceptions of the hub client into an InputError that says what to do.

    Args:
        where: the parameter and its value, with which an error's message begins.
    """
    from httpx2 import InvalidURL
    from huggingface_hub import errors

    _check_answers()
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    # the order matters: GatedRepoError is a RepositoryNotFoundError, and
    # LocalEntryNotFoundError an EntryNotFoundError
    try:
        yield
    except _BadAnswer as error:
        raise InputError(
            f"{where}: {error}, which could lead out of the cache; nothing was fetched: is "
            f"{endpoint} the right hub (HF_ENDPOINT)?"
        ) from None
    except errors.HFValidationError as error:
        raise InputError(f"{where}: no name of a repository: {one_line(error)}") from None
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
    except errors.HTTPError as error:  # of the HTTP library: refused, timed out
        raise _unreachable(where, endpoint, error) from None
    except OSError as error:  # the connection was cut, or the disk is full
        raise InputError(
            f"{where}: the download broke off ({one_line(error)}); run this "
            "again: files that were finished are kept"
        ) from None
    except InvalidURL as error:
        raise _unreachable(where, endpoint, error) from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # as the client reads it
        raise InputError(
            f"{where}: what {endpoint} answers is not a hub's form ({type(error).__name__}: "
            f"{one_line(error)}); check HF_ENDPOINT and the proxy's variables"
        ) from None


def _unreachable(where: str, endpoint: str, error: Exception) -> InputError:
    return InputError(
        f"{where}: the hub at {endpoint} cannot be reached and nothing is stored here "
        f"({one_line(error)}); check the network, HF_ENDPOINT and "
        "HF_HUB_OFFLINE, or use a local path"
    )
