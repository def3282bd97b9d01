"""Every stage, at every call with which it touches files: identical outputs, or one clear line."""

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.faults.stage import NOT_MET, FaultyStage
from tests.faults.table import kind_of, record

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
FEW, MANY = 10, 130

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace makes the faults")


@pytest.mark.parametrize(
    ("name", "most"),
    [(name, FEW) for name in ("prepare_sharegpt", "export_checkpoint")]
    + [
        pytest.param(name, MANY, marks=[pytest.mark.long, pytest.mark.timeout(5400)])
        for name in STAGES
    ],
)
def test_a_fault_ends_in_identical_outputs_or_in_one_clear_line(name, most, reproduced, tmp_path):
    outcomes: Counter[tuple[str, str]] = Counter()
    with FaultyStage(name, reproduced, tmp_path) as stage:
        faults = list(stage.faults())
        random.Random(most).shuffle(faults)
        for fault in faults[:most]:
            outcomes[kind_of(fault), stage.meet(fault)] += 1
    assert any(outcome != NOT_MET for _, outcome in outcomes)
    if most == MANY:
        record(name, outcomes)


def test_runs_and_caches_may_lie_on_another_disk(reproduced, tmp_path):
    """And training that is killed there goes on."""
    with FaultyStage("train", reproduced, tmp_path) as stage:
        faults = [fault for fault in stage.faults() if fault.call == "rename"]
        stage.clean()
        with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
            assert Path(elsewhere).stat().st_dev != tmp_path.stat().st_dev
            for part in ("runs", "cache"):
                (Path(elsewhere) / part).mkdir()
                (stage.folder / part).symlink_to(Path(elsewhere) / part)
            assert stage.run(faults[-1].arguments()) != 0
            stage.rerun("on another disk")
            assert list(Path(elsewhere).glob("runs/*/best"))
            for part in ("runs", "cache"):
                (stage.folder / part).unlink()
