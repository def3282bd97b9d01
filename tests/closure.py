"""Which of the project's modules a script runs, directly or not."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]


def closure(script: Path) -> set[Path]:
    """Project files that are loaded with `script`, itself included, as their text says.

    These are the imports of its modules and the programs that they name (`Path("eagle/train.py")`).
    An import inside a function does not count: a stage need not come there, and
    tests/integration/test_dag.py checks what each stage really imported.
    """
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for node in _outside_functions(ast.parse((ROOT / path).read_text()).body):
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


def _outside_functions(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    for node in nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from _outside_functions(ast.iter_child_nodes(node))
