"""What SLURM's variables say of a job."""

import pytest

from eagle.slurm import cpus_on_first_node, in_batch_script


@pytest.mark.parametrize(("listed", "cpus"), [("16(x3),8", 16), ("4,2", 4), ("72", 72)])
def test_the_cpus_are_those_of_the_first_node(monkeypatch, listed, cpus):
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", listed)
    assert cpus_on_first_node() == cpus


def test_a_step_starts_no_steps(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    assert not in_batch_script()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert in_batch_script()
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert not in_batch_script()
