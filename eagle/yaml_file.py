"""YAML files that people write: what YAML lets pass and nobody means is refused by its line."""

from pathlib import Path
from typing import Any

import yaml

from eagle.errors import InputError, one_line
from eagle.files import check_file

LARGEST_FILE = 2**20  # bytes; the parser takes seconds for one


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice, and aliases of lists and mappings.

    YAML takes the last of two keys. A few lines of aliases of aliases stand for more values than
    fit into memory.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        alias = self.peek_event() if self.check_event(yaml.AliasEvent) else None
        node = super().compose_node(parent, index)
        if alias is not None and not isinstance(node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(
                problem=f"*{alias.anchor} repeats a list or a mapping; write it out",
                problem_mark=alias.start_mark,
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[Any, int] = {}
        for key, _value in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value} stands twice, first in line {lines[name]}; "
                    "remove one",
                    problem_mark=key.start_mark,
                )
            lines[name] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of one YAML file.

    Raises:
        InputError: the file is absent, larger than LARGEST_FILE or not UTF-8; not YAML; or it has a
            key twice, or an alias of a list or mapping.
    """
    if check_file(path) > LARGEST_FILE:
        raise InputError(f"{path}: larger than {LARGEST_FILE:,} bytes; is it the right file?")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except RecursionError:
        raise InputError(f"{path}: YAML nested too deeply to be read") from None
    # the parser raises the others for a value that is not of its tag, such as !!int x
    except (yaml.YAMLError, ValueError, OverflowError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: not valid YAML: {one_line(error)}") from None
