"""Every family of causal language models works as a verifier, or is refused at admission."""

import pytest

from tests.families import FAMILIES, UNBUILT, VARIANTS
from tests.matrix import take_through
from tests.verifiers_page import record


@pytest.mark.long
@pytest.mark.parametrize("name", [*FAMILIES, *VARIANTS])
def test_works_or_is_refused(name, tmp_path):
    outcome = take_through(name, tmp_path)
    assert (outcome.outcome == "not built") == (name in UNBUILT), outcome
    record(name, outcome)
