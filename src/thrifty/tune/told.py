"""A trial as the study has it, told to people."""

from __future__ import annotations

from thrifty.spec.tuning import Trial
from thrifty.tune.record import Record
from thrifty.tune.task import Aim


def trial_of(record: Record, aim: Aim) -> Trial:
    """Return a trial in the words of a table."""
    said = record.said
    done = max([said.step, *record.curve]) if record.status != "impossible" else 0
    return Trial(
        number=record.number,
        settings=record.settings,
        status=record.status,
        value=aim.figure(record),
        share=done / said.total if said.total else 0.0,
        epochs=done / said.per_epoch if said.per_epoch else 0.0,
        seconds=said.spent.seconds,
        priced_seconds=said.priced.seconds,
        priced_joules=said.priced.joules,
        priced_usd=said.priced.usd,
        says=said.says,
    )
