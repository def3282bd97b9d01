"""The folder of one run: its name, the other runs beside it, and what a finished run publishes."""

import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from eagle.config import TrainConfig
from eagle.errors import InputError
from eagle.files import sha256_of_file, whole_folder, write_json
from eagle.provenance import provenance
from eagle.training.distributed import rank_and_world
from eagle.training.run_state import find_states

# Fields that cannot change the trained weights. The hashes of what they name take the place of
# paths.
NOT_IN_THE_NAME = {
    "verifier_model_path", "dataset_path", "eagle_config_path", "cpdir", "output", "save",
    "clearml_project", "clearml_task", "progress_seconds", "verifier_sharding", "peak_tflops",
}  # fmt: skip
# Modules that cannot change a result.
NOT_IN_THE_CODE = {"eagle.config", "eagle.tracking"}
DRAFTS = ("best", "last")
RESULTS = ("metrics.json", "provenance.json", "history.csv", "validations.csv")
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
        _, world = rank_and_world()
        # the tokens of the stage's folder were made with a date of their own
        unread = {"template_date"} if config.dataset_path.is_dir() else set()
        parameters = config.model_dump(mode="json", exclude=NOT_IN_THE_NAME | unread)
        parameters |= {"world": world}
        name = sha256_of_text(repr((sorted(parameters.items()), inputs)))[:16]
        return cls(config.cpdir / name, parameters, inputs)

    def create(self) -> None:
        """Create the folder, and report unfinished runs beside it when this run is new.

        Raises:
            InputError: it cannot be written.
        """
        unfinished = [] if find_states(self.path) else unfinished_runs(self.path.parent)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / ".writable").touch()
            (self.path / ".writable").unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"--cpdir: {self.path} cannot be written: {error.strerror}") from None
        if unfinished and rank_and_world()[0] == 0:
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

    def write_results(self, metrics: dict[str, float], seconds: float) -> None:
        """Write metrics.json and provenance.json beside the drafts.

        Args:
            seconds: wall time of the run.
        """
        write_json(self.path / "metrics.json", metrics)
        write_json(self.path / "provenance.json", provenance(self.parameters, self.inputs, seconds))

    def publish(self, folder: Path) -> None:
        """Copy drafts and results to `folder`, which is then complete or unchanged."""
        with whole_folder(folder) as partial:
            for name in DRAFTS:
                shutil.copytree(self.path / name, partial / name)
            for name in RESULTS:
                shutil.copyfile(self.path / name, partial / name)


def unfinished_runs(cpdir: Path) -> list[str]:
    """Names of the run folders that have a state but no last draft."""
    return sorted(
        folder.name
        for folder in cpdir.glob("*")
        if find_states(folder) and not (folder / "last").is_dir()
    )


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


def sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
