"""Let `dvc plots show` and `dvc plots diff` draw without a network.

    python -m tools.offline_plots          # once in each clone
    dvc plots diff fast long

The page that DVC writes (dvc_plots/index.html) fetches Vega, which draws the plots, from elsewhere.
This puts a page of our own into .dvc/plots.html, with the Vega that the environment has anyway for
the charts of the report, and its name into .dvc/config.local, from where DVC takes it. git ignores
both files.
"""

import subprocess
from pathlib import Path

import vl_convert

from eagle.command_line import parser
from eagle.errors import one_clear_message
from eagle.files import write_text

PAGE = Path(".dvc/plots.html")
VEGA_LITE = "5.21"
"""The last one of the version in which DVC's plots are written."""
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'">
<title>Plots of DVC</title>
<style>
body { margin: 1.5rem; font: 1rem/1.6 system-ui, sans-serif; background: #fff; color: #1f2328; }
main > div { overflow-x: auto; margin-bottom: 1.5rem; }
</style>
<script>%s</script>
</head>
<body>
<h1>Plots of DVC</h1>
<main>{plot_divs}</main>
</body>
</html>
"""


def main() -> None:
    parser("tools.offline_plots", __doc__).parse_args()
    write_text(PAGE, TEMPLATE % vl_convert.javascript_bundle(vl_version=VEGA_LITE))
    name = PAGE.relative_to(".dvc")
    subprocess.run(["dvc", "config", "--local", "plots.html_template", name], check=True)
    print(f"offline_plots: wrote {PAGE}, with which DVC's plots need no network in this clone")


if __name__ == "__main__":
    with one_clear_message():
        main()
