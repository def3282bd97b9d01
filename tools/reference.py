"""The pages of the documentation that list every parameter and every command, from the code.

    python -m tools.reference

Reads eagle/config.py, params.yaml, and the explanations at the head of every script and tool.
Writes docs/parameters.md and docs/commands.md.
"""

import ast
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from eagle.command_line import parser
from eagle.config import Params, PrepareShareGptConfig, TrainConfig
from eagle.errors import one_clear_message
from eagle.files import write_text
from eagle.yaml_file import read_yaml

PARAMETERS = Path("docs/parameters.md")
COMMANDS = Path("docs/commands.md")
GENERATED = "<!-- Written by `make schema` from the code; do not edit. -->\n\n"
ABOUT_PARAMETERS = """# Parameters

Every value of `params.yaml`: what it means, what is allowed, and the value that ships. The code has
no other defaults for the DAG. What is `auto` follows the data and the device; the log says what it
became. The commands of the upstream tutorial have defaults of their own:
[where they differ](tutorial_defaults.md), and their flags at the end of [Commands](commands.md).
"""
ABOUT_COMMANDS = """# Commands

What `--help` says of every stage, tool and benchmark. `--help` does nothing else.
"""
GROUPS = {
    "Stages": ("scripts", "`dvc repro NAME` runs a stage with all that it needs."),
    "Tools": ("tools", "They run beside the DAG."),
    "Benchmarks": ("benchmarks", "They measure, and write into `benchmarks/results/`."),
}
TUTORIAL = {
    "eagle/train.py": TrainConfig,
    "eagle/prepare_sharegpt_dataset.py": PrepareShareGptConfig,
}


def parameters() -> str:
    """The page of params.yaml: a table for each section."""
    schema = Params.model_json_schema()
    values = read_yaml(Path("params.yaml"))
    parts = [ABOUT_PARAMETERS]
    for section, spec in schema["properties"].items():
        rows = schema["$defs"][spec["$ref"].rpartition("/")[2]]["properties"]
        parts.append(f"## {section}\n\n| key | allowed | ships | meaning |\n|---|---|---|---|")
        parts += [
            f"| `{key}` | {allowed(rows[key])} | {code(value)} | {cell(rows[key]['description'])} |"
            for key, value in values[section].items()
        ]
        parts.append("")
    return _page(parts)


def commands() -> str:
    """The page of stages, tools, benchmarks and the tutorial's two commands."""
    parts = [ABOUT_COMMANDS]
    for title, (folder, about) in GROUPS.items():
        parts.append(f"## {title}\n\n{about}\n")
        for path in sorted(Path(folder).glob("*.py")) + sorted(Path(folder).glob("*/__main__.py")):
            text = path.read_text(encoding="utf-8")
            explanation = ast.get_docstring(ast.parse(text))
            if explanation and '__name__ == "__main__"' in text:
                module = ".".join(path.with_suffix("").parts).removesuffix(".__main__")
                parts.append(f"### {module}\n\n```text\n{explanation}\n```\n")
    parts.append("## The upstream tutorial's commands\n")
    for path, config in TUTORIAL.items():
        parts.append(f"### {path}\n\n| flag | allowed | default | meaning |\n|---|---|---|---|")
        parts += _flags(config)
        parts.append("")
    return _page(parts)


def _flags(config: type[BaseModel]) -> list[str]:
    schema = config.model_json_schema()["properties"]
    rows = []
    for name, field in config.model_fields.items():
        default = "must be given" if field.is_required() else code(schema[name].get("default"))
        meaning = cell(schema[name]["description"])
        flag = name.replace("_", "-")
        rows.append(f"| `--{flag}` | {allowed(schema[name])} | {default} | {meaning} |")
    return rows


def allowed(spec: dict[str, Any]) -> str:
    """What JSON schema allows, in words."""
    if members := spec.get("anyOf") or spec.get("oneOf"):
        return " or ".join(dict.fromkeys(allowed(member) for member in members))
    if "enum" in spec:
        return ", ".join(code(value) for value in spec["enum"])
    if "const" in spec:
        return code(spec["const"])
    match spec.get("type"):
        case "integer" | "number" as kind:
            name = "whole number" if kind == "integer" else "number"
            return ", ".join([name, *_bounds(spec)])
        case "boolean":
            return "`true`, `false`"
        case "null":
            return "`null`"
        case "array":
            return "a list"
        case "object":
            return "a mapping"
    return "text"


def _bounds(spec: dict[str, Any]) -> list[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return [f"{sign} {spec[key]:,}" for key, sign in signs.items() if key in spec]


def code(value: Any) -> str:
    """A value as YAML would have it, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


def cell(text: str) -> str:
    """Text for a cell of a table, on one line."""
    return " ".join(text.split()).replace("|", "\\|")


def _page(parts: list[str]) -> str:
    return GENERATED + "\n".join(parts).rstrip() + "\n"


PAGES = {PARAMETERS: parameters, COMMANDS: commands}


def main(arguments: list[str]) -> None:
    """Write both pages."""
    parser("tools.reference", __doc__).parse_args(arguments)
    for path, page in PAGES.items():
        write_text(path, page())
        print(f"wrote {path}")


if __name__ == "__main__":
    with one_clear_message():
        main(sys.argv[1:])
