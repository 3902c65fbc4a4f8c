"""``report_to``: names that are known, once each; every mistake is told with the nearest name."""

from __future__ import annotations

from typing import Any

import pytest

from thrifty.errors import JobError
from thrifty.spec import parse_job
from thrifty.spec.writers import WRITERS

JOB: dict[str, Any] = {"name": "a", "data": {"kind": "image", "path": "x"}, "model": "resnet8"}


def test_one_or_several() -> None:
    assert parse_job(JOB).report_to == ()
    assert parse_job({**JOB, "report_to": "mlflow"}).report_to == ("mlflow",)
    assert parse_job({**JOB, "report_to": list(WRITERS)}).report_to == tuple(WRITERS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["tensorbord"], "report_to: nothing called 'tensorbord' .* mean 'tensorboard'"),
        (["wandb", "comet"], "nothing called 'comet' can be reported to; known: tensorboard, mlflow, wandb"),
        (["wandb", "wandb"], "report_to: a name is said twice"),
        ({"wandb": True}, "report_to: a list of names"),
        ([3], "report_to: a list of names"),
    ],
    ids=["nearest", "unknown", "twice", "mapping", "number"],
)
def test_a_mistake_is_told(given: Any, says: str) -> None:
    with pytest.raises(JobError, match=says):
        parse_job({**JOB, "report_to": given})
