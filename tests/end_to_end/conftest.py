"""A real engine for the long tests."""

import os
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="session")
def engine_python() -> str:
    """An interpreter that has an engine: ENGINE_PYTHON, or vLLM's that the Makefile installs."""
    if python := os.environ.get("ENGINE_PYTHON"):
        return python
    subprocess.run(["make", "vllm"], cwd=ROOT, check=True)
    return str(ROOT / ".venv-vllm/bin/python")
