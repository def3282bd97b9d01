"""The image: its Dockerfile copies what exists, installs exact pins and needs no compiler."""

import re
from importlib.metadata import metadata

from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
PAGE = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
EXACT_PIN = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)")  # no local version, URL, path, extra


def copied_by_name() -> list[str]:
    """Sources of every COPY from the build context."""
    instructions = DOCKERFILE.read_text().replace("\\\n", " ").splitlines()
    copies = [line.split()[1:] for line in instructions if line.startswith("COPY ")]
    from_context = [words for words in copies if not any(w.startswith("--from=") for w in words)]
    return [w for words in from_context for w in words[:-1] if not w.startswith("--")]


def stages() -> dict[str, str]:
    """Instructions of every stage, in order, with the ARGs of the head at their defaults."""
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    head = text[: text.index("\nFROM ")]
    for name, value in re.findall(r"^ARG (\w+)=(\S+)$", head, re.MULTILINE):
        text = text.replace("${" + name + "}", value)
    parts = re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]
    return {part.split()[3]: part for part in parts}


def takes_part(target: str) -> set[str]:
    """The stages that a target is built from, itself among them."""
    instructions = stages()[target]
    named = re.findall(r"^FROM (\S+)|--from=(\S+)|[,=]from=([^,\s]+)", instructions, re.MULTILINE)
    before = {name for names in named for name in names if name in stages()}
    return {target}.union(*(takes_part(name) for name in before))


def pins(name: str) -> dict[str, str]:
    """Versions by package; fails on a line that is neither a comment nor an exact pin."""
    lines = (ROOT / name).read_text().splitlines()
    matches = {line: EXACT_PIN.fullmatch(line) for line in lines if not line.startswith("#")}
    wrong = [line for line, match in matches.items() if match is None]
    assert not wrong, f"{name} has lines that are not name==version: {wrong}"
    found = [match.groups() for match in matches.values() if match is not None]
    return {package.lower().replace("_", "-"): version for package, version in found}


def test_every_file_copied_by_name_exists():
    names = copied_by_name()
    assert "requirements.lock" in names
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_no_image_needs_a_compiler_but_for_flash_attn():
    (*_, default) = stages()
    assert default == "gpu"  # what `docker build` makes without --target, as in the tutorial
    for target in ("cpu", default):
        text = "".join(stages()[name] for name in takes_part(target))
        assert "make environment" in text
        assert "nvidia/cuda" not in text
        assert "build-essential" not in text
    assert "flash-attn" in takes_part("gpu-with-flash-attn")
    assert "torch-gpu" not in takes_part("cpu")


def test_snakemake_runs_in_the_image_that_the_page_tells_to_build():
    (image,) = re.findall(r'^container: "(.+?)"', (ROOT / "workflow/Snakefile").read_text(), re.M)
    assert f"apptainer build {image} docker-daemon:eagle:latest" in PAGE
    assert "docker build --tag eagle -f docker/Dockerfile ." in PAGE


def test_every_line_of_the_locks_is_an_exact_pin_and_no_package_stands_in_both():
    workflow, tests = pins("requirements.lock"), pins("requirements-dev.lock")
    assert "torch" in workflow
    assert "pytest" in tests
    assert workflow.keys() & tests.keys() == set()


def test_every_pinned_package_takes_the_oldest_python():
    names = pins("requirements.lock") | pins("requirements-dev.lock")
    takes = {name: metadata(name)["Requires-Python"] for name in names}
    assert {name: t for name, t in takes.items() if t and "3.11.0" not in SpecifierSet(t)} == {}


def test_flash_attn_is_pinned_outside_the_lock():
    lock, image = pins("requirements.lock"), pins("requirements-flash-attn.txt")
    assert "flash-attn" in image
    assert "flash-attn" not in lock
    # the image installs this file after the lock and must not change what the lock installed
    assert {p: v for p, v in image.items() if lock.get(p, v) != v} == {}
