"""Reports and cards, rendered from the templates in resources/pages."""

import json
import re
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

TEMPLATES = Path(__file__).parents[1] / "resources" / "pages"
_OF_MARKDOWN = re.compile(r"[\\`*|\[\]]")
_PLAIN_YAML = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)


def render(template: str, /, **values) -> str:
    """Render a template of resources/pages.

    Values are text, in HTML and in Markdown: they bring no markup of their own, and in Markdown no
    line break. What the filter `yaml_text` gives is one text in the YAML of a card.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    html = ".html" in template
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=html,
        finalize=None if html else _in_markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"yaml_text": _in_yaml, "words": words}
    return environment.get_template(template).render(**values)


def words(name: str) -> str:
    """A name of a results file as people read it: the one spelling of tables and charts."""
    return name.replace("_", " ")


def _in_markdown(value: Any) -> str:
    if isinstance(value, Markup):
        return value
    line = " ".join(str(value).splitlines())
    return _OF_MARKDOWN.sub(r"\\\g<0>", line.replace("&", "&amp;").replace("<", "&lt;"))


def _in_yaml(value: str) -> Markup:
    plain = _PLAIN_YAML.fullmatch(value) and yaml.safe_load(value) == value  # not so for `no`
    return Markup(value if plain else json.dumps(value))
