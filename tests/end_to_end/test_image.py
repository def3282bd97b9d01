"""docker/Dockerfile carried out: its own steps, then the whole workflow in what they made."""

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.conftest import CANARY, ROOT
from tests.integration.conftest import TINY_PARAMS, executed, write_tiny_data
from tests.tiny import MARKED, PARAMS, make_verifier
from tools.build_image import build

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]
# who runs the image, and where the data are in it
USERS = ("0:0", "1000:1000")
DATA = "/mnt/resources"
HOST = "container"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The CPU image and its commit, in a storage of its own that is removed at the end."""
    for program in ("buildah", "debootstrap"):
        if shutil.which(program) is None or os.geteuid():
            pytest.skip(f"needs root, and {program} from Debian")
    storage = tmp_path_factory.mktemp("storage")
    (storage / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{storage}/graph"\nrunroot = "{storage}/run"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_STORAGE_CONF", str(storage / "storage.conf"))
        patch.setenv("PIP_TRUSTED_HOST", f"{CANARY}.example")
        patch.chdir(ROOT)
        commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
        try:
            for step, seconds in build("cpu", "bookworm").items():
                print(f"{seconds:.0f} s {step}")
            yield SimpleNamespace(name="localhost/eagle:cpu", commit=commit)
        finally:
            buildah("rm", "--all")
            buildah("rmi", "--all", "--force")
            shutil.rmtree(storage)  # 5 GB


def buildah(*arguments: str) -> str:
    """What a command of buildah's prints."""
    finished = subprocess.run(
        ["buildah", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


@pytest.fixture(params=USERS)
def container(image, request, tmp_path):
    """`(run, resources)`: a shell in a fresh container, and the folder mounted into it."""
    resources = tmp_path / "resources"
    resources.mkdir()
    write_tiny_data(resources, resources / "verifier")
    make_verifier(resources / "marked", MARKED, max_position_embeddings=2048)
    params = yaml.safe_load(PARAMS.read_text())
    for section, values in TINY_PARAMS.items():
        params[section].update(values)
    params["verifier"] |= {"source": f"path:{DATA}/verifier", "revision": None}
    params["sharegpt"]["source"] = f"{DATA}/conversations"
    params["template"]["file"] = f"{DATA}/chat_templates/tiny.jinja"
    params["evaluate"]["bench"] = f"{DATA}/bench/tiny.jsonl"
    (resources / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for path in (resources, *resources.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)  # for any user
    # as Docker's engine does it: torchrun needs an address for the container's host name
    address = f"--add-host={HOST}:127.0.0.1"
    name = buildah("from", "--pull=never", address, image.name).strip()
    run = functools.partial(
        buildah, "run", "--isolation", "chroot", "--hostname", HOST, "--user", request.param,
        "--volume", f"{resources}:{DATA}", name, "--", "sh", "-ec",
    )  # fmt: skip
    yield run, resources
    buildah("rm", name)


def test_the_workflow_runs_as_root_and_as_a_user_unknown_to_the_image(image, container, request):
    run, resources = container
    assert run("git status --porcelain && git rev-parse HEAD").strip() == image.commit
    output = run(f"cp {DATA}/params.yaml . && make repro")
    assert len(executed(output)) == 9
    assert "Read results/report.md" in output
    assert executed(run("dvc repro")) == []
    # the tutorial's commands, which leave their results in the mounted folder
    run(
        f"python3 eagle/prepare_sharegpt_dataset.py --frac 1.0 --output {DATA}/sharegpt.jsonl "
        f"--source {DATA}/conversations/tiny.json"
    )
    run(
        "torchrun --nnodes=1 --nproc_per_node=1 eagle/train.py --micro-batch-size 4 "
        "--num-warmup-steps 1 --num-training-steps 4 --epochs 1 --learning-rate 2e-4 "
        f"--verifier-model-path {DATA}/marked --dataset-path {DATA}/sharegpt.jsonl "
        f"--maximum-model-length 2048 --cpdir {DATA}/checkpoints --attn auto "
        "--verifier-model-dtype float32 --verifier-model-lm-head-dtype float32 "
        "--eagle-dtype float32 --mixed-precision none"
    )
    (draft,) = (resources / "checkpoints").glob("*/best/model.safetensors")
    user = int(request.node.callspec.params["container"].partition(":")[0])
    assert draft.stat().st_uid == user


def test_the_image_holds_its_commit_and_no_setting_of_the_machine_that_built_it(image):
    config = json.loads(buildah("inspect", "--type", "image", image.name))
    labels = config["OCIv1"]["config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == image.commit
    assert CANARY not in json.dumps(config)
    container = buildah("from", "--pull=never", image.name).strip()
    root = Path(buildah("mount", container).strip())
    searched = [root / name for name in ("etc", "home", "opt", "root", "run", "tmp", "var")]
    found = subprocess.run(["grep", "-rl", "-e", CANARY, *searched], capture_output=True, text=True)
    assert found.stdout == ""
    assert found.returncode == 1, found.stderr  # 1: searched, nothing found
    assert not (root / "opt/venv/pip.log").exists()  # in which indexes stand
    assert not (root / "opt/venv/bin/pytest").exists()  # the workflow's packages alone
    buildah("rm", container)
