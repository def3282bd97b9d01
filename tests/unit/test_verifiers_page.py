"""docs/verifiers.md says what the last run of the long tests found."""

import json

import pytest
import transformers

from tests import verifiers_page
from tests.families import FAMILIES, VARIANTS
from tests.matrix import Outcome
from tests.verifiers_page import PAGE, RESULTS, page, record


def test_the_page_is_written_from_the_results():
    assert PAGE.read_text() == page(json.loads(RESULTS.read_text()))


def test_every_family_has_a_row():
    results = json.loads(RESULTS.read_text())
    assert results["transformers"] == transformers.__version__
    assert set(results["verifiers"]) == {*FAMILIES, *VARIANTS}


def test_what_worked_must_not_stop_working(tmp_path, monkeypatch):
    monkeypatch.setattr(verifiers_page, "RESULTS", tmp_path / "verifiers.json")
    monkeypatch.setattr(verifiers_page, "PAGE", tmp_path / "verifiers.md")
    record("llama", Outcome("works", "sdpa", "last_layer"))
    record("bart", Outcome("refused", reason="no rotary embedding"))
    assert (
        "2 rows: 1 work, 1 are refused, 0 could not be built."
        in (tmp_path / "verifiers.md").read_text()
    )
    with pytest.raises(AssertionError, match="llama worked before"):
        record("llama", Outcome("refused", reason="layer_types"))
