"""`TensorBoard`: a run as event files, written by TensorBoard's own package, without TensorFlow or torch."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thrifty.report.to.desk import Last
from thrifty.report.to.figures import (
    STEP_TOLD,
    VALIDATION_TOLD,
    Place,
    bill_figures,
    figures_of,
    held_out_figures,
    settings_of,
)
from thrifty.spec.events import Ended, Evaluated, Event, Planned, StepDone

# of a record: its length and a checksum before it, a checksum after it (TensorFlow's TFRecord)
_HEAD, _TAIL = 12, 4


def load() -> None:
    """Import what the writer needs."""
    import tensorboard.compat.proto.event_pb2
    import tensorboard.plugins.hparams.summary_v2
    import tensorboard.summary.writer.record_writer  # noqa: F401


class TensorBoard:
    """Writes ``reported/tensorboard`` of a run; see it by ``tensorboard --logdir runs``."""

    def __init__(self, place: Place) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.folder = place.kept / "tensorboard"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._last = _last(self.folder)
        self._step = self._last.step
        self._event = event_pb2.Event
        stamp = f"{time.time():017.6f}"
        self._file = (self.folder / f"events.out.tfevents.{stamp}.{socket.gethostname()}").open("xb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")

    def last(self) -> Last:
        return self._last

    def tell(self, event: Event) -> None:
        match event:
            case StepDone() | Evaluated():
                self._step = event.step
                self._scalars(figures_of(event))
            case Planned(plan):
                from tensorboard.plugins.hparams import summary_v2

                told = summary_v2.hparams_pb(settings_of(plan), trial_id=plan.key)
                self._write(summary=told)
            case Ended(_, _, metrics, spent):
                self._scalars(held_out_figures(metrics) | bill_figures(spent))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._records.close()

    def _scalars(self, figures: dict[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(step=self._step, summary=Summary(value=values))

    def _write(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())


def event_files(folder: Path) -> list[Path]:
    """Return the event files of a folder, the oldest first."""
    return sorted(folder.glob("events.out.tfevents.*"))


def records(path: Path) -> Iterator[bytes]:
    """Go through the records of an event file, up to one that a kill cut short."""
    with path.open("rb") as file:
        while len(head := file.read(_HEAD)) == _HEAD:
            (length,) = struct.unpack("<Q", head[:8])
            record = file.read(length + _TAIL)
            if len(record) < length + _TAIL:
                return
            yield record[:length]


def _last(folder: Path) -> Last:
    from tensorboard.compat.proto import event_pb2

    steps, validations = [0], [0]
    for path in event_files(folder):
        for record in records(path):
            event = event_pb2.Event.FromString(record)
            tags = {value.tag for value in event.summary.value}
            steps += [event.step] if STEP_TOLD in tags else []
            validations += [event.step] if VALIDATION_TOLD in tags else []
    return Last(max(steps), max(validations))
