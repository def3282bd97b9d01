"""What training and decoding reach on a GPU, against what the machine can do at most.

    python -m benchmarks.gpu                          # on one H100 or H200: at most six minutes
    python -m benchmarks.gpu --parts decoding waits   # some parts alone
    python -m benchmarks.gpu --toy --result FILE      # the same code on a CPU, at tiny sizes

Verifiers and drafts have random weights, which is enough to time them. Each part has a process and
a time limit of its own, and is reported even if another fails; the result file is written anew
after each. A part that fails makes the command end with 1, a target that is missed does not.

Needs torch >= 2.11, transformers >= 5.17, pandas, safetensors, rich and pydantic (Python >= 3.11).
Where there is no package registry, bring wheels of what is missing. On a machine with the first
five, these are six, 3 MB together, in the versions of requirements.lock:

    pip download --no-deps --only-binary=:all: --python-version 3.12 \\
        --platform manylinux_2_17_x86_64 --dest wheels pydantic==2.14.3 pydantic_core==2.50.4 \\
        annotated-types==0.8.0 typing-inspection==0.4.5 pydantic-settings==2.16.3 \\
        python-dotenv==1.2.4
    pip install --no-index --no-deps --target site wheels/*.whl   # there, then PYTHONPATH=site

"""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.gpu.ceilings import measure_ceilings, measure_machine
from benchmarks.gpu.decoding import measure_decoding
from benchmarks.gpu.deterministic import measure_deterministic
from benchmarks.gpu.forwards import measure_forwards
from benchmarks.gpu.gpu_tests import measure_tests
from benchmarks.gpu.kernels import measure_kernels
from benchmarks.gpu.kills import measure_kills
from benchmarks.gpu.lossless import measure_lossless
from benchmarks.gpu.memory import measure_memory
from benchmarks.gpu.part import run_part
from benchmarks.gpu.precision import measure_precision
from benchmarks.gpu.saving import measure_saving
from benchmarks.gpu.scale import GPU, TOY
from benchmarks.gpu.targets import check_targets
from benchmarks.gpu.training import measure_training
from benchmarks.gpu.waits import measure_waits
from eagle.files import write_json

RESULT = Path("benchmarks/results/gpu.json")
# Each part with the seconds after which it is stopped; what matters most comes first.
PARTS = {
    "machine": (measure_machine, 30),
    "ceilings": (measure_ceilings, 20),
    "training": (measure_training, 90),
    "decoding": (measure_decoding, 150),
    "kernels": (measure_kernels, 30),
    "forwards": (measure_forwards, 20),
    "waits": (measure_waits, 30),
    "saving": (measure_saving, 45),
    "memory": (measure_memory, 30),
    "lossless": (measure_lossless, 70),
    "kills": (measure_kills, 60),
    "deterministic": (measure_deterministic, 30),
    "precision": (measure_precision, 40),
    "tests": (measure_tests, 60),
}


def main() -> None:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--seconds", type=float, default=360, help="for all parts together")
    options.add_argument("--result", type=Path, help=f"the file to write (default: {RESULT})")
    options.add_argument("--commit", help="what to write where there is no git repository")
    options.add_argument("--toy", action="store_true", help="tiny sizes on a CPU")
    arguments = options.parse_args()
    if arguments.toy and arguments.result is None:
        options.error("--toy needs --result: its figures are not a GPU's")
    result_file = arguments.result or RESULT
    began = time.monotonic()
    command = " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])
    result = {"command": command, "toy": arguments.toy}
    parts: dict[str, dict] = {}
    for name in dict.fromkeys(["machine", *arguments.parts]):  # every result names its machine
        measure, limit = PARTS[name]
        left = arguments.seconds - (time.monotonic() - began)
        if left < 1:
            parts[name] = {"error": f"no time is left of {arguments.seconds:g} seconds"}
        else:
            parts[name] = run_part(measure, TOY if arguments.toy else GPU, min(limit, left))
        show(name, parts[name])
        if name == "machine":
            if not (arguments.toy or parts[name].get("hardware", {}).get("gpus")):
                sys.exit("error: there is no GPU here; --toy runs the same code on a CPU")
            parts[name]["git_commit"] = parts[name]["git_commit"] or arguments.commit
        result["seconds"] = round(time.monotonic() - began, 1)
        write_json(result_file, result | {"targets": check_targets(parts), "parts": parts})
    for row in check_targets(parts):
        met = {True: "met", False: "MISSED", None: "not measured"}[row["met"]]
        value = "" if row["value"] is None else f"{row['value']:.4g}"
        print(f"{row['target']:<40} {row['bound']:>9} {value:>9}  {met}")
    failed = [name for name, found in parts.items() if "error" in found]
    print(f"{result['seconds']} seconds; wrote {result_file}")
    if failed:
        sys.exit(f"error: {len(failed)} of {len(parts)} parts failed: {', '.join(failed)}")


def show(name: str, found: dict) -> None:
    """Print a part's figures, without the long lists."""
    lines = json.dumps(_short(found), indent=1).splitlines()[1:-1]
    print(f"{name}:", *lines, sep="\n", flush=True)


def _short(value: object) -> object:
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list) and len(value) > 8:
        return f"{len(value)} values"
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
