"""Numbers that were decided carry their units; words and unknown fields stay as they are."""

from __future__ import annotations

import pytest

from thrifty.report.decided import UNITS, value_text
from thrifty.spec import Decision


@pytest.mark.parametrize("field", UNITS)
def test_numbers_carry_units_and_words_do_not(field: str) -> None:
    assert value_text(Decision(field=field, value="12", reason="", source="rule")) == f"12 {UNITS[field]}"
    assert value_text(Decision(field=field, value="none", reason="", source="rule")) == "none"


def test_a_field_without_a_unit_stays() -> None:
    assert value_text(Decision(field="learning_rate", value="0.001", reason="", source="rule")) == "0.001"
