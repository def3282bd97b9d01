"""What a result was computed from: inputs, code, packages, machine; no secrets, no user paths."""

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

PACKAGES = ("torch", "transformers", "safetensors", "huggingface_hub", "dvc", "snakemake", "pandas")


def provenance(parameters: dict, inputs: dict[str, str], seconds: float) -> dict:
    """The provenance of a run, for provenance.json.

    Args:
        parameters: everything that decided the result, with the seeds.
        inputs: name and SHA-256 of each input.
        seconds: wall time of the work, which ends now.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "parameters": parameters,
        "inputs": inputs,
        "git_commit": _git("rev-parse", "HEAD"),
        # without dvc.lock, which DVC itself changes while the stages run
        "git_dirty": bool(_git("status", "--porcelain", "-uno", "--", ".", ":!dvc.lock")),
        "packages": {"python": platform.python_version()} | _versions(),
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "wall_seconds": round(seconds, 1),
    }


def _cpu() -> str:
    """The processor's name; where the system does not tell it, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


def _git(*arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # a container image or an archive has no repository
    return answer.stdout.strip()
