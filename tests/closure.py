"""Which of the project's modules a script runs, directly or not."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def closure(script: Path) -> set[Path]:
    """Project files that `script` imports or names as a program, itself included, by its text."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and str(node.value).endswith(".py"):
                names = [node.value.removesuffix(".py").replace("/", ".")]
            for name in names:
                candidate = Path(*name.split(".")).with_suffix(".py")
                if (
                    name.split(".")[0] in ("eagle", "scripts", "tools")
                    and (ROOT / candidate).is_file()
                ):
                    waiting.append(candidate)
    return found
