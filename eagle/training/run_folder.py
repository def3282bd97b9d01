"""The folder of one run: who may write it, the other runs beside it, and what it ends with."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from eagle.checksums import damaged
from eagle.config import TrainConfig
from eagle.errors import InputError
from eagle.file_lock import Held, file_lock
from eagle.files import (
    CHECKSUMS,
    entries,
    hashes_of,
    sha256_of_file,
    write_checksums,
    write_json,
    write_text,
)
from eagle.provenance import provenance
from eagle.training.distributed import rank_and_world
from eagle.training.on_disk import find_states
from eagle.training.run_identity import (
    DRAFT_FOLDERS,
    RESULT_FILES,
    run_name,
    run_parameters,
    sha256_of_text,
)

# Modules that cannot change a result.
NOT_IN_THE_CODE = {"eagle.config", "eagle.errors", "eagle.lifetime", "eagle.tracking"}
NAMED_RUNS = 3
"""Names of unfinished runs in a message; the others are counted."""


@dataclass(frozen=True)
class RunFolder:
    """The folder in `cpdir` whose name is the hash of all that decides the trained weights."""

    path: Path
    parameters: dict
    """The config's fields that can change the weights, and the number of processes."""
    inputs: dict[str, str]
    """SHA-256 of what is read, and of the code."""

    @classmethod
    def of(cls, config: TrainConfig, inputs: dict[str, str]) -> "RunFolder":
        """The folder of the run with this config and these inputs; it need not exist."""
        parameters = run_parameters(config, rank_and_world()[1])
        return cls(config.cpdir / run_name(parameters, inputs), parameters, inputs)

    @contextmanager
    def held(self, invocation: str | None) -> Iterator[None]:
        """Create the folder and keep other processes from training this run; rank 0 does it.

        Unfinished runs beside it are reported when this run is new.

        Args:
            invocation: written to the folder, when there is one.

        Raises:
            InputError: it cannot be written, or another process trains this run.
        """
        if rank_and_world()[0] != 0:
            yield
            return
        unfinished = [] if find_states(self.path) else unfinished_runs(self.path.parent)
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(file_lock(self.path / "lock", wait=False))
            except Held as holder:
                raise InputError(
                    f"{self.path}: this run is being trained by {holder}, and two processes cannot "
                    "write one folder; wait until that one has ended, or end it, and start again"
                ) from None
            except OSError as error:
                raise InputError(
                    f"--cpdir: {self.path} cannot be written: {error.strerror}"
                ) from None
            if invocation is not None:
                write_text(self.path / "invocation", invocation)
            if unfinished:
                self._report(unfinished)
            yield

    def finished(self) -> bool:
        """Whether the run has ended, and its drafts and results are here as they were written.

        What is damaged is named and removed, so that training writes it again; the answer of rank
        0, which does that, counts.
        """
        if rank_and_world()[0] != 0:
            return False
        ended = (self.path / CHECKSUMS).exists()
        found = damaged(self.path) if ended else []
        if ended and not found:
            return True
        (self.path / CHECKSUMS).unlink(missing_ok=True)
        for damage in found:
            if damage.path.parent == self.path:
                damage.path.unlink(missing_ok=True)
        for name in DRAFT_FOLDERS:
            if lost := damaged(self.path / name):  # by the draft's own list
                shutil.rmtree(self.path / name)
                found += lost
        for damage in dict.fromkeys(found):
            print(f"{damage}; it is made again", file=sys.stderr, flush=True)
        return False

    def write_results(self, metrics: dict[str, float], seconds: float) -> None:
        """Write metrics.json and provenance.json beside the drafts, and the hashes of all of them.

        Args:
            seconds: wall time of the run.
        """
        write_json(self.path / "metrics.json", metrics)
        write_json(self.path / "provenance.json", provenance(self.parameters, self.inputs, seconds))
        drafts = {
            f"{name}/{file}": sha256
            for name in DRAFT_FOLDERS
            for file, sha256 in hashes_of(self.path / name).items()
        }
        results = {name: sha256_of_file(self.path / name) for name in RESULT_FILES}
        write_checksums(self.path, drafts | results)

    def _report(self, unfinished: list[str]) -> None:
        """Print that this run does not go on from the unfinished ones beside it."""
        names = ", ".join(unfinished[:NAMED_RUNS])
        more = len(unfinished) - NAMED_RUNS
        print(
            f"train: {self.path.parent} has unfinished runs that were started with other "
            f"parameters, data or code: {names}{f' and {more} more' if more > 0 else ''}; this "
            "run does not go on from them but starts anew. Remove their folders if you no "
            "longer need them",
            file=sys.stderr,
            flush=True,
        )


def unfinished_runs(cpdir: Path) -> list[str]:
    """Names of the run folders that have a state but no last draft."""
    return [
        folder.name
        for folder in entries(cpdir)
        if find_states(folder) and not (folder / "last").is_dir()
    ]


def code_hash(program: Path) -> str:
    """SHA-256 of the code of this project that is loaded in this process.

    Args:
        program: the file that was started.
    """
    files = {
        module.__file__
        for name, module in sys.modules.items()
        if name.startswith("eagle.") and name not in NOT_IN_THE_CODE
    }
    hashes = [sha256_of_file(Path(file)) for file in sorted(files | {str(program)})]
    return sha256_of_text("".join(hashes))
