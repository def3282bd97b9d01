"""Every recipe fits params.yaml, and changes only what it names."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from eagle.config import load_params
from eagle.errors import InputError
from scripts.train import train_config
from tests.conftest import ROOT
from tools.use_recipe import use

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_changes_what_it_names_and_nothing_else(checkout, name):
    before = yaml.safe_load(Path("params.yaml").read_text())
    recipe = yaml.safe_load(Path(f"recipes/{name}.yaml").read_text())
    use(name)
    after = yaml.safe_load(Path("params.yaml").read_text())
    assert after == {
        section: values | recipe.get(section, {}) for section, values in before.items()
    }
    assert "# Every parameter of the workflow." in Path("params.yaml").read_text()
    train_config(load_params())  # processes and accumulation divide the batch


@pytest.mark.parametrize("gpus", [1, 2, 4])
def test_the_upstream_tutorials_recipes_are_its_commands(checkout, gpus):
    use(f"llama2_7b_chat_{gpus}gpu")
    config = train_config(load_params())
    assert config.micro_batch_size == 8 // gpus
    assert config.gradient_accumulation_steps == 2
    assert config.num_warmup_steps == 1024 * gpus
    assert config.num_training_steps == 131072 * gpus
    assert config.epochs == 4


def test_an_unknown_or_broken_recipe_leaves_params_as_they_are(checkout):
    before = Path("params.yaml").read_text()
    with pytest.raises(InputError, match="choose one of .*smollm2_cpu_long"):
        use("smollm")
    Path("recipes/broken.yaml").write_text("train:\n  epochs: 0\n")
    with pytest.raises(InputError, match="epochs"):
        use("broken")
    assert Path("params.yaml").read_text() == before


def test_the_llama2_template_is_the_upstream_tutorials_example():
    example = ROOT / "resources/example_chat_template_with_generation_keyword.json"
    template = (ROOT / "resources/chat_templates/llama2.jinja").read_text()
    assert template.rstrip("\n") == json.loads(example.read_text())["chat_template"].rstrip("\n")
