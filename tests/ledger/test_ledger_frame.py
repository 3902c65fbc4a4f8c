"""The ledger as a table: units in names, nothing known is lost, what is not known is null."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from thrifty.ledger import Entry, StageEntry
from thrifty.ledger.frame import frame_of
from thrifty.spec import Cost, Interval, Spent


def entry(number: int, **changes: Any) -> Entry:
    spent = Spent(
        wall_s=10.0 * number, cpu_s=19.0, peak_rss_bytes=2**30, joules=500.0, usd=0.01, flops=5e12, joules_method="RAPL"
    )
    interval = Interval(low=8.0, value=10.0, high=12.0, method="m")
    line = Entry(
        id=number, name=f"run-{number}", key="k", folder=f"/runs/{number}", status="done",
        started="2026-11-23T22:58:04Z", finished="", attempts=1, pid=1,
        stages=(StageEntry(stage="train", attempt=1, spent=spent),),
        predicted=Cost(seconds=interval, peak_bytes=interval, joules=interval, usd=interval, flops=interval),
        total=spent, metrics={"accuracy": 0.9, "loss": 0.3}, reason="=1+1, all steps", code="c", device="Xeon",
        model="resnet8",
    )  # fmt: skip
    return line.model_copy(update=changes)


def test_every_column_has_its_unit() -> None:
    frame = frame_of([entry(1), entry(2, predicted=None, stages=(), metrics={"rmse": 4.0})])
    first, second = frame.rows(named=True)
    assert first["total_time_s"] == 10.0 and first["total_peak_memory_bytes"] == 2**30
    assert first["training_energy_J"] == 500.0 and first["predicted_time_s"] == 10.0
    assert (first["predicted_low_money_USD"], first["predicted_high_money_USD"]) == (8.0, 12.0)
    assert first["started"] == datetime(2026, 11, 23, 22, 58, 4, tzinfo=UTC) and first["finished"] is None
    assert (first["test_accuracy"], first["test_rmse"]) == (0.9, None)
    assert second["predicted_time_s"] is None and second["test_rmse"] == 4.0 and second["work_done_share"] is None
    for name in frame.columns:
        if name.startswith(("total", "training", "predicted")):
            assert name.endswith(("_s", "_J", "_USD", "_bytes", "_FLOP")), name


def test_an_empty_ledger_has_the_same_columns() -> None:
    empty, full = frame_of([]), frame_of([entry(1)])
    assert len(empty) == 0
    assert [name for name in full.columns if not name.startswith("test_")] == empty.columns
    assert all(empty.schema[name] == full.schema[name] for name in empty.columns)
