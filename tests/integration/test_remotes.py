"""DVC's remotes: what one checkout has computed, another one pulls and does not compute again."""

from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.conftest import CANARY, files_with_a_canary
from tests.integration.conftest import Project

KEYS = {
    "AWS_ACCESS_KEY_ID": f"id-{CANARY}",
    "AWS_SECRET_ACCESS_KEY": f"secret-{CANARY}",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def s3():
    """The address of a server that speaks S3 (moto's), with the bucket `bucket`."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    keys = {name.lower(): value for name, value in KEYS.items() if "KEY" in name}
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="bucket")
    yield address
    server.stop()


def clone(project: Project, folder: Path) -> Project:
    """A second checkout of what is committed."""
    project("git", "commit", "--quiet", "--all", "--message", "a remote")
    project("git", "clone", "--quiet", project.folder, folder)
    return Project(folder, project._run)


def results(folder: Path) -> dict[str, bytes]:
    """What the stages wrote."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for top in ("models", "results")
        for path in (folder / top).rglob("*")
        if path.is_file()
    }


def ran(output: str) -> list[str]:
    """Stages whose command DVC ran, the check of parameters among them."""
    return [line for line in output.splitlines() if line.startswith("Running stage '")]


def test_a_second_checkout_pulls_from_a_folder_and_runs_nothing(project: Project, tmp_path):
    project("dvc", "remote", "add", "--default", "storage", tmp_path / "shared")
    project("dvc", "push", "--run-cache")
    second = clone(project, tmp_path / "second")
    second("dvc", "pull", "--run-cache")
    assert results(second.folder) == results(project.folder)
    output = second("dvc", "repro")
    assert ran(output) == []
    assert "Data and pipelines are up to date" in output
    # a result that is in no commit comes from the run cache
    for checkout in (project, second):
        checkout.set("verifier", license="mit")
    assert len(ran(project("dvc", "repro"))) == 2  # the check of parameters, the report
    project("dvc", "push", "--run-cache")
    assert ran(second("dvc", "repro", "--pull")) == []
    assert results(second.folder) == results(project.folder)


def test_a_second_checkout_pulls_from_s3_with_keys_that_no_file_holds(project, s3, tmp_path):
    project("dvc", "remote", "add", "--default", "storage", "s3://bucket/eagle")
    second = clone(project, tmp_path / "second")
    for checkout in (project, second):
        checkout("dvc", "remote", "modify", "--local", "storage", "endpointurl", s3)
    project("dvc", "push", "--run-cache", **KEYS)
    second("dvc", "pull", "--run-cache", **KEYS)
    assert results(second.folder) == results(project.folder)
    assert ran(second("dvc", "repro")) == []
    assert files_with_a_canary(tmp_path) == []


@pytest.mark.long
def test_keys_in_the_local_settings_are_in_no_commit_and_no_clone(project, s3, tmp_path):
    project("dvc", "remote", "add", "--default", "storage", "s3://bucket/eagle")
    local = ("dvc", "remote", "modify", "--local", "storage")
    for key, value in (
        ("endpointurl", s3),
        ("access_key_id", KEYS["AWS_ACCESS_KEY_ID"]),
        ("secret_access_key", KEYS["AWS_SECRET_ACCESS_KEY"]),
    ):
        project(*local, key, value)
    project("dvc", "push")
    project("git", "add", "--all")
    second = clone(project, tmp_path / "second")
    assert files_with_a_canary(tmp_path) == [project.folder / ".dvc/config.local"]
    assert "s3://bucket/eagle" in (second.folder / ".dvc/config").read_text()
