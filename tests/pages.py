"""Pages in a browser, as people see them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = Path(__file__).parent / "browser"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def faults(*pages: Path) -> list[str]:
    """What is wrong with pages on a desktop and on a phone, by light and by dark.

    Accessibility (axe: WCAG A and AA, best practice), sideways scrolling, errors in the console,
    requests. Where there is no browser the test is skipped.
    """
    chromium = _chromium()
    if not shutil.which("node"):
        pytest.skip("no Node.js here: apt-get install nodejs npm")
    if not (BROWSER / "node_modules").is_dir():
        pytest.skip("axe-core is not installed: make browser")
    run = subprocess.run(
        ["node", BROWSER / "look.mjs", chromium, *pages],
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def drawn_without_network(page: Path) -> int:
    """How many plots Vega has drawn on a page in a browser that finds no other machine."""
    run = subprocess.run(
        [_chromium(), "--headless", "--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND",
         "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    return len(re.findall('<svg[^>]*class="marks"', run.stdout))


def _chromium() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or pytest.skip("no Chromium here: apt-get install chromium")
