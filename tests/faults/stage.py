"""One stage that faults meet, and what it must do then: no third outcome is allowed.

A fault is an error of the operating system, or SIGKILL, at one of the calls with which the stage
reads or writes files. strace puts it there, so that it is real for Rust and C++ as well.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import yaml

from tests.conftest import ROOT

ERRORS = {
    "openat": ["EACCES", "EMFILE", "EROFS"],
    "read": ["EIO"],
    "mmap": ["ENOMEM"],
    "write": ["ENOSPC", "EIO", "EDQUOT"],
    "sendfile": ["ENOSPC", "EIO"],
    "fallocate": ["ENOSPC", "EIO"],
    "ftruncate": ["ENOSPC", "EIO"],
    "fsync": ["EIO", "ENOSPC"],
    "rename": ["EIO", "ENOSPC"],
    "mkdir": ["ENOSPC", "EACCES", "EROFS"],
    "unlink": ["EIO", "EROFS"],
    "rmdir": ["EIO"],
}
"""Calls of Linux, and errors that each may end in."""
KILL = "SIGKILL"
SHORT = "short write"
IDENTICAL = "identical outputs"
RERUN = "identical outputs after a rerun"
ONE_LINE = "one line, nothing half-written"
NOT_MET = "not met"
"""The run came to its end before the call that was to fail."""
TIMED = ("provenance.json", "metrics.json", "details.json", "history.csv", "per_prompt.csv")
"""Files that hold times, which two runs may share by chance."""
DATA = ("resources", "results", "models", "runs", "cache")


class Fault(NamedTuple):
    call: str
    number: int
    """Counted from 1 in each thread; of SHORT, the bytes that no file may exceed."""
    error: str

    def arguments(self) -> list:
        if self.error == SHORT:
            return [self.number]
        kind = "signal" if self.error == KILL else "error"
        inject = f"inject={self.call}:{kind}={self.error}:when={self.number}"
        return ["-e", f"trace={self.call}", "-e", inject]


class FaultyStage:
    """A stage in a project of its own, which holds its inputs and, as under DVC, no outputs."""

    def __init__(self, name: str, reproduced: Path, folder: Path):
        self.name, self.folder, self.notes = name, folder / "project", folder
        shutil.copytree(
            reproduced, self.folder, ignore=shutil.ignore_patterns("cache", "tmp", "site", "docs")
        )
        params = yaml.safe_load((self.folder / "params.yaml").read_text())
        params["regenerate"]["enabled"] = name == "regenerate_replies"
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        stages = yaml.safe_load((self.folder / "dvc.yaml").read_text())["stages"]
        self.out_names = stages[name]["outs"]
        with (folder / "server").open("w") as errors:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.server", name, self.folder, self.notes],
                cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env=os.environ | {"EAGLE_CACHE": "cache", "HOME": str(folder)},
            )  # fmt: skip
        assert self.server.stdout.readline() == "ready\n", (folder / "server").read_text()
        first = self._reference()
        second = self._reference()
        self.expected = {
            name: second[name]
            for name in first
            if first[name] == second[name] and Path(name).name not in TIMED
        }
        """Hashes of the files of the outputs that come out the same each time."""
        self.names = set(first)
        """All of them; the others hold times."""
        self.clean()
        self.before = self._tree()

    def __enter__(self) -> "FaultyStage":
        return self

    def __exit__(self, *_error) -> None:
        self.server.stdin.close()
        assert self.server.wait(60) == 0

    def faults(self) -> Iterator[Fault]:
        """A fault for each call of a run that touches the project's files."""
        self.clean()
        assert self.run(["-e", f"trace={','.join(ERRORS)}"]) == 0
        numbers: dict[tuple[str, str], int] = {}
        met = set()
        for line in self._traced():
            thread, _, rest = line.partition(" ")
            call = rest.strip().partition("(")[0]
            if call not in ERRORS:
                continue
            number = numbers[thread, call] = numbers.get((thread, call), 0) + 1
            if self._of_project(line):
                met.add((call, number))
        for call, number in sorted(met):
            for error in [*ERRORS[call], KILL]:
                yield Fault(call, number, error)
        sizes = {path.stat().st_size for path in self.files()}
        for size in sorted(sizes):
            for limit in {size // 2, size - 1} - {0, -1}:
                yield Fault("write", limit, SHORT)

    def meet(self, fault: Fault) -> str:
        """Let a run meet a fault; returns the outcome.

        Raises:
            AssertionError: an outcome that is not allowed.
        """
        self.clean()
        code = self.run(fault.arguments())
        printed = self.printed
        where = f"{self.name}, {fault}: {printed}"
        assert "Traceback" not in printed and "Exception ignored" not in printed, where
        self.check_outputs(where)
        silenced = False
        if fault.error != SHORT:
            hits = [line for line in self._traced() if "INJECTED" in line or KILL in line]
            if not hits:
                assert code == 0, where
                return NOT_MET
            silenced = any(re.search(r"write\([12]<", line) for line in hits)
        if code == 0:
            self.check_complete(where)
            return IDENTICAL
        if fault.error == KILL:
            assert code == -9, where
        else:
            assert code > 0, where
            assert silenced or printed.splitlines()[-1].startswith("error: "), where
            assert self.temporary() == [], where
            if self._tree() == self.before:  # so that a rerun is a first run
                return ONE_LINE
        self.rerun(where)
        return RERUN

    def rerun(self, where: str) -> None:
        """Run without a fault: the outputs must come out, and nothing else may be left."""
        assert self.run([]) == 0, f"{where}\nrerun: {self.printed}"
        self.check_outputs(f"{where}, after a rerun")
        self.check_complete(where)
        assert self.temporary() == [], where

    def check_complete(self, where: str) -> None:
        """All outputs are there."""
        assert self.names == {self.name_of(path) for path in self.files()}, where

    def _reference(self) -> dict[str, str]:
        self.clean()
        assert self.run([]) == 0, self.printed
        return {self.name_of(path): _hash(path) for path in self.files()}

    def start(self, arguments: list) -> None:
        print(json.dumps([str(self.folder), arguments]), file=self.server.stdin, flush=True)

    def end(self) -> int:
        """The exit code of what was started."""
        return int(self.server.stdout.readline())

    @property
    def outs(self) -> list[Path]:
        return [self.folder / name for name in self.out_names]

    @property
    def printed(self) -> str:
        return (self.notes / "printed").read_text()

    def run(self, arguments: list) -> int:
        self.start(arguments)
        return self.end()

    def clean(self) -> None:
        for path in (*self.outs, self.folder / "runs", self.folder / "cache", *self.temporary()):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Files of the outputs that are there."""
        inside = [path for out in self.outs for path in (out, *out.rglob("*"))]
        return [path for path in inside if path.is_file()]

    def check_outputs(self, where: str) -> None:
        """Outputs are whole or absent."""
        for path in self.files():
            name = self.name_of(path)
            if name in self.expected:
                assert _hash(path) == self.expected[name], f"{where}\n{name} differs"
            elif path.suffix == ".json":
                json.loads(path.read_text())
            else:
                assert path.read_text().endswith("\n"), f"{where}\n{name} is cut off"
        for out in self.outs:
            if out.is_dir():
                inside = {name for name in self.names if name.startswith(f"{self.name_of(out)}/")}
                found = {self.name_of(path) for path in out.rglob("*") if path.is_file()}
                assert found == inside, f"{where}\n{out} is not whole"

    def temporary(self) -> list[Path]:
        """What only a run in progress may have."""
        found = [path for part in DATA for path in (self.folder / part).rglob(".*")]
        return [path for path in found if path.name.endswith((".partial", ".replaced"))]

    def _tree(self) -> dict[str, str]:
        paths = [path for part in DATA for path in (self.folder / part).rglob("*")]
        return {self.name_of(path): _hash(path) if path.is_file() else "" for path in paths}

    def _traced(self) -> list[str]:
        return (self.notes / "traced").read_text(errors="replace").splitlines()

    def _of_project(self, line: str) -> bool:
        named = re.findall(r'[<"]([^<>"]*)[>"]', line)
        data = [str(self.folder / part) for part in DATA]
        return any(name.startswith((*data, *DATA)) for name in named)

    def name_of(self, path: Path) -> str:
        return str(path.relative_to(self.folder))


def _hash(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
