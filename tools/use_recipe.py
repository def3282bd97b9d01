"""Put a recipe's values into params.yaml, on top of the base and of nothing else.

    python -m tools.use_recipe llama2_7b_chat_tutorial machine.processes=4
    python -m tools.use_recipe base                      # the base again

The base is the newest params.yaml in git's history that no recipe was put into; so what you commit
there (your verifier, your data) is in the base. A recipe leaves a line at the top of params.yaml,
and does not stand on the recipe before it. Values of your own that are in params.yaml and in no
commit of the base are not lost: the command names them and stops, unless you say --keep or
--discard. The result is checked like any params.yaml before it is written, and every value that
differs from before is printed.
"""

import shlex
from io import StringIO
from pathlib import Path

from eagle.base_params import MARK, PARAMS, Values, base_text, round_trip, values_of
from eagle.command_line import parser
from eagle.config import params_of
from eagle.errors import InputError, one_clear_message
from eagle.files import whole_file
from eagle.yaml_file import read_yaml

RECIPES = Path("recipes")
BASE = "base"


def use(name: str, changes: list[str], keep: bool = False, discard: bool = False) -> None:
    """Write params.yaml from the base, the recipe and the changes.

    Args:
        name: of a recipe, or "base".
        changes: section.key=value each.
        keep: put values of the user's own in again, on top.
        discard: leave them out.

    Raises:
        InputError: no such recipe, no base, values that would be lost, or a result that is refused
            as a params.yaml.
    """
    base, before = base_text(), PARAMS.read_text(encoding="utf-8")
    own = _own_values(before, base)
    if own and not (keep or discard):
        raise InputError(
            f"{PARAMS} has values that neither git's base nor a recipe has: "
            f"{', '.join(f'{key} = {value}' for key, value in own.items())}; commit them "
            "(without a recipe in the file: they become part of the base), or add --keep to put "
            "them in again, or --discard"
        )
    text = _with(base, name, changes, own if keep else {})
    with whole_file(PARAMS) as partial:
        partial.write_text(text, encoding="utf-8")
        params_of(read_yaml(partial), f"{PARAMS} with {name}")
    old, new = values_of(before), values_of(text)
    for key in old | new:
        if old.get(key) != new.get(key):
            print(f"  {key}: {old.get(key)} -> {new.get(key)}")
    print(f"use_recipe: wrote {PARAMS} from the base and {name}")


def _with(base: str, name: str, changes: list[str], own: Values) -> str:
    """The base's text with the values of a recipe, of changes to it, and of the user."""
    yaml = round_trip()
    params = yaml.load(base)
    values = _recipe(name)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or key not in values_of(base):
            raise InputError(f"{change}: expected section.key=value with a key of {PARAMS}")
        values[key] = yaml.load(value)
    for key, value in (values | own).items():
        section, field = key.split(".")
        params[section][field] = value
    text = StringIO()
    yaml.dump(params, text)
    mark = f"{MARK}{shlex.join([name, *changes])}\n" if name != BASE or changes else ""
    return mark + text.getvalue()


def _recipe(name: str) -> Values:
    if name == BASE:
        return {}
    file = RECIPES / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
        raise InputError(f"{file}: there is no such recipe; choose one of {known}, or {BASE}")
    return values_of(file.read_text(encoding="utf-8"))


def _own_values(text: str, base: str) -> Values:
    """What params.yaml has beside the base and the recipe that it names."""
    expected = base
    if text.startswith(MARK):
        name, *changes = shlex.split(text.splitlines()[0].removeprefix(MARK))
        if name == BASE or (RECIPES / f"{name}.yaml").is_file():
            expected = _with(base, name, changes, {})
    values = values_of(expected)
    return {
        key: value
        for key, value in values_of(text).items()
        if key not in values or values[key] != value
    }


def main() -> None:
    options = parser("tools.use_recipe", __doc__)
    options.add_argument("name", help=f"of a file in {RECIPES}/, without .yaml; or {BASE}")
    options.add_argument("changes", nargs="*", help="section.key=value, on top of the recipe")
    own = options.add_mutually_exclusive_group()
    own.add_argument("--keep", action="store_true", help="put values of your own in again")
    own.add_argument("--discard", action="store_true", help="leave values of your own out")
    arguments = options.parse_args()
    use(arguments.name, arguments.changes, arguments.keep, arguments.discard)


if __name__ == "__main__":
    with one_clear_message():
        main()
