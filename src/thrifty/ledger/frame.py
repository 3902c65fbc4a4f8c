"""The ledger as a table: a row a run, predicted beside measured, each column with its unit in its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from thrifty.ledger.entry import Entry, Quantity

if TYPE_CHECKING:
    import polars as pl

# of each quantity of a `Cost`, its column
COLUMNS: dict[Quantity, str] = {
    "seconds": "time_s", "peak_bytes": "peak_memory_bytes", "joules": "energy_J", "usd": "money_USD",
    "flops": "work_FLOP",
}  # fmt: skip
_TIME = "%Y-%m-%dT%H:%M:%SZ"


def frame_of(entries: Sequence[Entry]) -> pl.DataFrame:
    """Make a table of runs.

    Columns: what tells a run, ``started`` and ``finished`` in UTC; ``total_*`` of all its stages and attempts;
    ``training_*`` of the training stage, beside ``predicted_*`` of the whole plan and the bounds ``predicted_low_*``
    and ``predicted_high_*``; ``work_done_share`` of the planned work, to which predictions are held; ``test_*``, the
    figures of the test split. What is not known is null.
    """
    import polars as pl

    names = list(dict.fromkeys(name for entry in entries for name in sorted(entry.metrics)))
    texts = ("name", "folder", "status", "device", "model", "key", "code", "reason", "energy_method", "money_method")
    schema: dict[str, Any] = {
        "run": pl.Int64, **dict.fromkeys(texts[:7], pl.String), "attempts": pl.Int64,
        "started": pl.Datetime(time_zone="UTC"), "finished": pl.Datetime(time_zone="UTC"),
    }  # fmt: skip
    schema |= dict.fromkeys(
        ("total_time_s", "total_processor_s", "total_energy_J", "total_money_USD", "work_done_share"), pl.Float64
    )
    schema |= {"total_peak_memory_bytes": pl.Int64, "total_written_bytes": pl.Int64}
    for column in COLUMNS.values():
        parts = ("training", "predicted", "predicted_low", "predicted_high")
        schema |= dict.fromkeys((f"{part}_{column}" for part in parts), pl.Float64)
    schema |= dict.fromkeys((f"test_{name}" for name in names), pl.Float64) | dict.fromkeys(texts[7:], pl.String)
    frame = pl.DataFrame(
        [_row(entry) for entry in entries],
        schema={name: pl.String if name in {"started", "finished"} else kind for name, kind in schema.items()},
        orient="row",
    )
    stamps = [pl.col(name).str.to_datetime(_TIME, strict=False, time_zone="UTC") for name in ("started", "finished")]
    return frame.with_columns(stamps)


def _row(entry: Entry) -> dict[str, Any]:
    total, training = entry.total, entry.training()
    row: dict[str, Any] = {
        "run": entry.id,
        **{name: getattr(entry, name) for name in ("name", "folder", "status", "device", "model", "key", "code")},
        "attempts": entry.attempts, "started": entry.started, "finished": entry.finished or None,
        "reason": entry.reason, "energy_method": total.joules_method, "money_method": total.usd_method,
        "total_time_s": total.wall_s, "total_processor_s": total.cpu_s, "total_energy_J": total.joules,
        "total_money_USD": total.usd, "total_written_bytes": total.written_bytes,
        "total_peak_memory_bytes": total.device_peak_bytes or total.peak_rss_bytes,
        "work_done_share": entry.work_done() if training.flops else None,
        **{f"test_{name}": value for name, value in entry.metrics.items()},
    }  # fmt: skip
    for each in entry.comparisons():
        column = COLUMNS[each.quantity]
        row[f"training_{column}"] = each.measured or None
        row[f"predicted_{column}"] = each.predicted.value
        row[f"predicted_low_{column}"] = each.predicted.low
        row[f"predicted_high_{column}"] = each.predicted.high
    return row
