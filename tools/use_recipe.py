"""Put a recipe's values into params.yaml, leaving its comments and all other values.

    python -m tools.use_recipe llama2_7b_chat_1gpu

The result is checked like any params.yaml before it is written; `git diff params.yaml` shows it,
`git checkout params.yaml` takes it back.
"""

from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from eagle.command_line import parser
from eagle.config import load_params
from eagle.errors import InputError, one_clear_message
from eagle.files import whole_file

RECIPES = Path("recipes")
PARAMS = Path("params.yaml")


def use(name: str) -> None:
    """Raises: InputError: no such recipe, or a result that params.yaml's check refuses."""
    recipe = RECIPES / f"{name}.yaml"
    if not recipe.is_file():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise InputError(f"{recipe}: there is no such recipe; choose one of {known}")
    yaml = YAML()
    yaml.width = 200
    null = "tag:yaml.org,2002:null"
    yaml.representer.add_representer(type(None), lambda out, _: out.represent_scalar(null, "null"))
    params = yaml.load(PARAMS)
    for section, values in yaml.load(recipe).items():
        params[section].update(values)
    text = StringIO()
    yaml.dump(params, text)
    with whole_file(PARAMS) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
        load_params(partial)
    print(f"use_recipe: wrote {PARAMS} from {recipe}")


if __name__ == "__main__":
    options = parser("tools.use_recipe", __doc__)
    options.add_argument("name", help="of a file in recipes/, without .yaml")
    with one_clear_message():
        use(options.parse_args().name)
