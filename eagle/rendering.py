"""Pages filled from the templates in resources/pages."""

from pathlib import Path

import jinja2

PAGES = Path(__file__).parents[1] / "resources" / "pages"


def render(page: str, **values) -> str:
    """Fill a page of resources/pages; HTML pages escape what is put in."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=lambda name: ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(page).render(**values)
