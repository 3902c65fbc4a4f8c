"""The run that the report's tests show."""

from __future__ import annotations

from typing import Any

import pytest
from made_runs import (
    JOB,
    REJECTS,
    make_confusion,
    make_dataset,
    make_device,
    make_entry,
    make_evaluations,
    make_plan,
    make_steps,
)


@pytest.fixture
def run() -> dict[str, Any]:
    """The arguments of `write_page`, without the path."""
    return {
        "entry": make_entry(), "plan": make_plan(), "dataset": make_dataset(), "device": make_device(),
        "steps": make_steps(), "evaluations": make_evaluations(), "confusion": make_confusion(),
        "rejects": REJECTS, "job_text": JOB,
    }  # fmt: skip
