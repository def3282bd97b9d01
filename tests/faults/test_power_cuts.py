"""Power cuts on a real file system: what was written whole is whole afterwards, and work goes on.

An image of a file system is mounted, and shut down at a random moment with FS_IOC_SHUTDOWN, as the
kernel's own tests do: what was not synced by then is lost. Mounted again, it recovers its journal.
"""

import fcntl
import os
import random
import select
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.stage import FaultyStage

SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
WITHOUT_FLUSHING = struct.pack("I", 2)
MAKE = {"ext4": ["mkfs.ext4", "-q"], "xfs": ["mkfs.xfs", "-q"]}
MOUNT = {"ext4": ["mount"], "xfs": ["mount", "-o", "nouuid"]}


class Disk:
    """A file system in an image."""

    def __init__(self, folder: Path, kind: str):
        self.kind, self.image, self.mounted = kind, folder / "image", folder / "mounted"
        with self.image.open("wb") as file:
            file.truncate(320 * 2**20)
        self.mounted.mkdir()
        try:
            subprocess.run([*MAKE[kind], self.image], check=True, capture_output=True)
            self.mount()
        except (OSError, subprocess.CalledProcessError):
            pytest.skip(f"this machine cannot mount an image of {kind}")

    def mount(self) -> None:
        """Through a device of its own: a mount that is still known would be taken up again."""
        attach = ["losetup", "--find", "--show", self.image]
        attached = subprocess.run(attach, check=True, capture_output=True, text=True)
        self.device = attached.stdout.strip()
        command = [*MOUNT[self.kind], self.device, self.mounted]
        subprocess.run(command, check=True, capture_output=True)

    def cut(self) -> None:
        """The power fails."""
        descriptor = os.open(self.mounted, os.O_RDONLY)
        fcntl.ioctl(descriptor, SHUTDOWN, WITHOUT_FLUSHING)
        os.close(descriptor)

    def unmount(self) -> None:
        subprocess.run(["umount", self.mounted], check=True)
        subprocess.run(["losetup", "--detach", self.device], check=True)


@pytest.fixture
def disk(request, tmp_path):
    disk = Disk(tmp_path, request.param)
    yield disk
    disk.unmount()


@pytest.mark.parametrize(
    ("disk", "name", "cuts"),
    [("ext4", "train", 3)]
    + [
        pytest.param(disk, name, 12, marks=pytest.mark.long)
        for disk in MAKE
        for name in ("prepare_sharegpt", "tokenize_dataset", "train", "export_checkpoint")
    ],
    indirect=["disk"],
)
def test_a_power_cut_leaves_what_is_whole_and_work_goes_on(
    disk, name, cuts, reproduced, tmp_path, monkeypatch
):
    """What a stage says it wrote is there; what it had not finished is made anew, identically."""
    monkeypatch.setenv("EAGLE_CACHE", "cache")
    generator = random.Random(cuts)
    (tmp_path / "stage").mkdir()
    with FaultyStage(name, reproduced, tmp_path / "stage") as stage:
        began = time.monotonic()
        stage.clean()
        assert stage.run([]) == 0
        seconds = time.monotonic() - began
        stage.clean()
        stage.folder = Path(shutil.copytree(stage.folder, disk.mounted / "project"))
        for number in range(cuts):
            stage.clean()
            os.sync()
            stage.start([])
            # every second one comes as soon as the stage has said what it wrote
            moment = None if number % 2 else seconds * generator.random()
            ended, _, _ = select.select([stage.server.stdout], [], [], moment)
            disk.cut()
            code = stage.end()
            where = f"cut {number} of {name} on {disk.kind}: {code}, {stage.printed}"
            disk.unmount()
            disk.mount()
            stage.check_outputs(where)
            if ended:
                assert code == 0, where
                stage.check_complete(where)
            stage.rerun(where)
