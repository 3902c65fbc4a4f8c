"""`WeightsAndBiases`: a run in W&B's own files, without a network unless ``WANDB_MODE`` says so."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thrifty.files import write_atomic
from thrifty.report.to.desk import Last
from thrifty.report.to.figures import Place, bill_figures, figures_of, held_out_figures, settings_of
from thrifty.spec.events import Ended, Evaluated, Event, Planned, StepDone

KEPT_SECONDS = 1.0
# of a part of a record: its sum, its length, and where in the record it stands
_HEAD = struct.Struct("<IHB")
_OWN_BYTES, _BLOCK = 7, 32_768
_WHOLE, _FIRST, _LAST = 1, 2, 4


def load() -> None:
    """Import what the writer needs."""
    import wandb  # noqa: F401


class WeightsAndBiases:
    """Logs to a project named as the job; attempts have one id, so that W&B takes them for one run."""

    def __init__(self, place: Place) -> None:
        import wandb

        kept = place.kept.resolve()
        kept.mkdir(parents=True, exist_ok=True)
        identity = hashlib.sha256(str(place.folder.resolve()).encode()).hexdigest()[:16]
        # W&B's process writes a while later than it is told, or after ours was killed
        self._told = kept / "wandb.json"
        written = (step for path in segments(kept, identity) for step in _steps(path))
        self._last = self._step = max([self._kept(), *written])
        self._kept_at = time.monotonic()
        # as of a process that ends without a word
        self._exit_code = 1
        self._run = wandb.init(
            project=place.name,
            name=place.folder.name,
            id=identity,
            resume="allow",
            dir=str(kept),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def _kept(self) -> int:
        try:
            return int(json.loads(self._told.read_bytes())["step"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def last(self) -> Last:
        # W&B takes nothing for a step before its last, validations neither
        return Last(self._last, self._last)

    def tell(self, event: Event) -> None:
        match event:
            case StepDone() | Evaluated():
                self._step = event.step
                self._run.log(figures_of(event), step=event.step)
            case Planned(plan):
                self._run.config.update(settings_of(plan), allow_val_change=True)
            case Ended(status, reason, metrics, spent):
                self._exit_code = 0 if status == "done" else 1
                found = held_out_figures(metrics) | bill_figures(spent)
                self._run.summary.update({**found, "status": status, "reason": reason})

    def flush(self) -> None:
        if time.monotonic() - self._kept_at > KEPT_SECONDS:
            self._keep()

    def close(self) -> None:
        self._keep()
        self._run.finish(exit_code=self._exit_code)

    def _keep(self) -> None:
        write_atomic(self._told, json.dumps({"step": self._step}), purpose="the last step that W&B was told")
        self._kept_at = time.monotonic()


def segments(kept: Path, identity: str) -> list[Path]:
    """Return the files of the attempts of a run, in their order."""
    return sorted(kept.glob(f"wandb/*run-*-{identity}/run-{identity}.wandb"))


def records(path: Path) -> Iterator[Any]:
    """Go through the records of W&B's file, up to one that a kill cut short."""
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    for data in _logged(path.read_bytes()):
        try:
            yield wandb_internal_pb2.Record.FromString(data)
        except DecodeError:
            return


def _logged(raw: bytes) -> Iterator[bytes]:
    """Put records of a log as LevelDB writes it together: blocks of 32 KiB, each part after its sum, length and place.

    The first block begins with seven bytes of W&B's own (LevelDB's log_format.md).
    """
    at, parts = _OWN_BYTES, b""
    while at + _HEAD.size <= len(raw):
        left = _BLOCK - at % _BLOCK
        if left < _HEAD.size:
            at += left
            continue
        _, length, place = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        if not _WHOLE <= place <= _LAST or at + length > len(raw):
            return
        parts = (b"" if place in {_WHOLE, _FIRST} else parts) + raw[at : at + length]
        at += length
        if place in {_WHOLE, _LAST}:
            yield parts


def _steps(path: Path) -> Iterator[int]:
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            yield int(record.history.step.num)
