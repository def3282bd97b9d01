"""Reports and cards, rendered from the templates in resources/pages."""

from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parents[1] / "resources" / "pages"


def render(template: str, /, **values) -> str:
    """Render a template of resources/pages; in HTML the values are escaped.

    Raises:
        jinja2.UndefinedError: the template uses a value that is not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
