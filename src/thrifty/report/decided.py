"""What a plan decided, with the unit of each number."""

from __future__ import annotations

from thrifty.spec import Decision

UNITS = {
    "batch": "samples", "cooldown": "of the steps", "epochs": "epochs", "evaluate_every": "steps",
    "micro_batch": "samples", "steps": "steps", "threads": "threads", "warmup": "of the steps",
}  # fmt: skip


def value_text(decision: Decision) -> str:
    """Print what was decided, a number with its unit.

    >>> value_text(Decision(field="warmup", value="0.05", reason="", source="rule"))
    '0.05 of the steps'
    >>> value_text(Decision(field="batch", value="1", reason="", source="job"))
    '1 sample'
    """
    unit, value = UNITS.get(decision.field), decision.value
    if unit is None or not value.replace(",", "").replace(".", "", 1).isdigit():
        return value
    return f"{value} {unit.removesuffix('s') if value == '1' and unit.count(' ') == 0 else unit}"
