"""The browser that judges the pages finds what it looks for."""

import re

import pytest

from tests.pages import faults

PAGE = """<title>x</title><p style="color: #bbb">pale</p><div style="width: 600px">wide</div>
<img src="http://127.0.0.1:9/x.png"><script>console.error("said")</script>"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("pages") / "bad.html"
    path.write_text(PAGE)
    return "\n".join(faults(path))


@pytest.mark.parametrize(
    "fault",
    ["html-has-lang", "color-contrast", "landmark-one-main", "image-alt", "console: said",
     "asked for http://127.0.0.1:9", "390 px, dark: 218 px wider than the screen"],
)  # fmt: skip
def test_a_bad_page_is_faulted(found, fault):
    assert fault in found


def test_a_wide_screen_has_room(found):
    assert "1280 px, light: html-has-lang" in found
    assert not re.search("1280 px, light: [0-9]+ px wider", found)
