"""What a run is: everything that decides its weights, and the name that stands for it."""

import hashlib
from pathlib import Path

from eagle.config import TrainConfig

# Fields that cannot change the trained weights. The hashes of what they name take the place of
# paths.
NOT_IN_THE_NAME = {
    "verifier_model_path", "dataset_path", "eagle_config_path", "cpdir", "invocation", "save",
    "save_minutes", "clearml_project", "clearml_task", "progress_seconds", "verifier_sharding",
    "peak_tflops",
}  # fmt: skip
CHOSEN_BY_TRAINING = ("initialization", "attn", "softmax_vocabulary")
"""Fields that name something else in a run than was asked for, where that was `auto` or is another
name for the same (flash_attention_2 without its package)."""
DRAFT_FOLDERS = ("best", "last")
RESULT_FILES = ("metrics.json", "history.csv", "validations.csv", "provenance.json")
"""Files of a finished run beside its drafts; provenance.json is written last."""


def initial_draft(config: TrainConfig) -> Path | None:
    """The folder of the draft that training begins from, if it begins from one."""
    kind, _, folder = config.initialization.partition(":")
    return Path(folder) if kind == "path" else None


def run_parameters(config: TrainConfig, processes: int) -> dict:
    """The fields of a config that can change the weights, and the number of processes."""
    # the tokens of the stage's folder were made with a date of their own
    unread = {"template_date"} if config.dataset_path.is_dir() else set()
    parameters = config.model_dump(mode="json", exclude=NOT_IN_THE_NAME | unread)
    if initial_draft(config):  # a hash takes the place of the path
        parameters["initialization"] = "path"
    return parameters | {"world": processes}


def run_name(parameters: dict, inputs: dict[str, str]) -> str:
    """The name of a run's folder.

    Args:
        inputs: SHA-256 of what is read, and of the code.
    """
    return sha256_of_text(repr((sorted(parameters.items()), inputs)))[:16]


def sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
