"""docs/reliability.md promises what tests prove."""

import ast
import json
import re

from tests.conftest import ROOT
from tests.faults.table import BEGIN, END, RESULTS, table

PAGE = (ROOT / "docs/reliability.md").read_text()


def test_every_promise_names_tests_that_exist():
    tables = re.findall(r"^\|.*\| test \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert rows
    assert [row for row in rows if "`tests/" not in row.rsplit(" | ", 1)[1]] == []
    for file, name in re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE):
        tree = ast.parse((ROOT / file).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_table_of_faults_is_what_was_measured():
    written = PAGE.partition(BEGIN)[2].partition(END)[0]
    assert written == table(json.loads(RESULTS.read_text()))
