"""Read a Hugging Face ``trainer_state.json``: the curves of a training that `transformers.Trainer` did."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thrifty.errors import DataError
from thrifty.report.figures import thin
from thrifty.spec.beside import Beside, Points

SOURCE = "transformers.Trainer"
MOST_BYTES, MOST_LINES, MOST_NAMES = 64 << 20, 1_000_000, 64
_ANOTHER = "Give the trainer_state.json that transformers.Trainer writes into a checkpoint's folder."
# of validations, what is no figure of how good the model is
_BESIDE_FIGURES = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
_VALIDATED, _LAST = "eval_", "train_runtime"
LONGEST_NAME = 100


def read_trainer_state(path: Path) -> Beside:
    """Read the log of a training by Hugging Face's trainer.

    Raises:
        DataError: the file is missing, too large, no JSON, or not what that trainer writes; says where.
    """
    state = _parsed(path)
    history = state.get("log_history")
    if not isinstance(history, list) or not history:
        raise DataError(f"'{path}' has no log_history: a list of what was logged", mend=_ANOTHER)
    if len(history) > MOST_LINES:
        raise DataError(
            f"'{path}' has {len(history):,} lines of log_history, and {MOST_LINES:,} are read", mend=_ANOTHER
        )
    lines = [_line(path, at, each) for at, each in enumerate(history)]
    last = next((line for line in reversed(lines) if _LAST in line), {})
    steps = _whole(path, state, "global_step", max(int(line["step"]) for line in lines))
    found = Beside(
        name=_name(path),
        source=SOURCE,
        loss=_points(lines, "loss"),
        learning_rate=_points(lines, "learning_rate"),
        validation=_validation(path, lines),
        steps=steps,
        epochs=_number(path, state, "epoch"),
        batch=_whole(path, state, "train_batch_size", 0),
        seconds=max(0.0, last.get(_LAST, 0.0)),
        flops=_number(path, state, "total_flos"),
    )
    if not found.loss and not found.validation:
        raise DataError(f"'{path}' has neither losses nor validations in its log_history", mend=_ANOTHER)
    return found


def _parsed(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(f"there is no file '{path}'", mend=_ANOTHER)
    if (size := path.stat().st_size) > MOST_BYTES:
        raise DataError(f"'{path}' has {size:,} bytes, and {MOST_BYTES:,} are read", mend=_ANOTHER)
    try:
        state = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"'{path}' is no JSON: {' '.join(str(error).split())[:200]}", mend=_ANOTHER) from None
    if not isinstance(state, dict):
        raise DataError(f"'{path}' holds a {type(state).__name__}, not keys and values", mend=_ANOTHER)
    return state


def _line(path: Path, at: int, line: Any) -> dict[str, float]:
    """The numbers of one line; what is none, such as a text that a callback logged, is left out."""
    if not isinstance(line, dict):
        raise DataError(f"line {at + 1} of log_history of '{path}' holds a {type(line).__name__}", mend=_ANOTHER)
    if not _is_number(line.get("step")) or not 0 <= line["step"] < 2**53:
        shown = repr(line.get("step"))[:50]
        raise DataError(f"line {at + 1} of log_history of '{path}' has no step: {shown}", mend=_ANOTHER)
    return {name: float(value) for name, value in line.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) > 1e300


def _points(lines: Sequence[Mapping[str, float]], name: str) -> Points:
    """A figure by step; of a step that was logged twice, as after a resume, the last; thinned as a page draws it."""
    by_step = {line["step"]: line[name] for line in lines if name in line and math.isfinite(line[name])}
    xs = sorted(by_step)
    return tuple(zip(*thin(xs, [by_step[x] for x in xs]), strict=True)) if xs else ()


def _validation(path: Path, lines: Sequence[Mapping[str, float]]) -> dict[str, Points]:
    names = dict.fromkeys(name for line in lines for name in line if name.startswith(_VALIDATED))
    wanted = [name for name in names if not name.endswith(_BESIDE_FIGURES)]
    if len(wanted) > MOST_NAMES:
        raise DataError(f"'{path}' has {len(wanted):,} figures of validation, and {MOST_NAMES} are read", mend=_ANOTHER)
    found = {name.removeprefix(_VALIDATED)[:LONGEST_NAME]: _points(lines, name) for name in wanted}
    return {name: points for name, points in found.items() if points}


def _whole(path: Path, state: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = state.get(name)
    if value is None:
        return otherwise
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise DataError(f"'{path}' has {name} {repr(value)[:50]}, which is no count", mend=_ANOTHER)
    return value


def _number(path: Path, state: Mapping[str, Any], name: str) -> float:
    value = state.get(name)
    if value is None:
        return 0.0
    if not _is_number(value) or not math.isfinite(value) or value < 0:
        raise DataError(f"'{path}' has {name} {repr(value)[:50]}, which is no amount", mend=_ANOTHER)
    return float(value)


def _name(path: Path) -> str:
    """The folder of a checkpoint says little; the one above it is the run's."""
    folder = path.resolve().parent
    folder = folder.parent if folder.name.startswith("checkpoint-") else folder
    return (folder.name or path.stem)[:LONGEST_NAME]
