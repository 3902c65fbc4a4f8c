"""What writers are told, in names that all of them take: figures by step, settings, and the bill."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thrifty.spec import Plan, Spent
from thrifty.spec.events import Evaluated, StepDone

Setting = str | int | float | bool
# of the plan, what says nothing of how it is done
_NO_SETTINGS = {"why", "cost", "key", "job", "guard"}
LONGEST = 250
_ODD = re.compile(r"[^\w./ -]")
# told at each step, and at each validation
STEP_TOLD, VALIDATION_TOLD = "train/step_seconds", "validation/seconds"


@dataclass(frozen=True)
class Place:
    """Where a run's figures go: the name of its job, and its folder."""

    name: str
    folder: Path

    @property
    def kept(self) -> Path:
        """Folder of what writers keep."""
        return self.folder / "reported"


def figures_of(event: StepDone | Evaluated) -> dict[str, float]:
    """Return the figures of a step or a validation by name; what is no number is left out.

    >>> figures_of(Evaluated(9, 1.0, {"accuracy": 0.5}, True, 0.1, 2.0))
    {'validation/accuracy': 0.5, 'validation/seconds': 2.0}
    """
    if isinstance(event, StepDone):
        found = {
            "train/loss": event.loss, "train/learning_rate": event.learning_rate, "train/epoch": event.epoch,
            "train/gradient_norm": event.gradient_norm, "train/samples_per_second": event.samples_per_second,
            "train/step_seconds": event.seconds,
        }  # fmt: skip
    else:
        found = {f"validation/{name}": value for name, value in event.metrics.items()}
        found["validation/seconds"] = event.seconds
    return {name: value for name, value in found.items() if math.isfinite(value)}


def bill_figures(spent: Spent) -> dict[str, float]:
    """Return the bill by name, with units."""
    return {
        "bill/seconds": spent.wall_s, "bill/processor_seconds": spent.cpu_s, "bill/joules": spent.joules,
        "bill/usd": spent.usd, "bill/flops": spent.flops,
        "bill/peak_bytes": float(spent.device_peak_bytes or spent.peak_rss_bytes),
        "bill/written_bytes": float(spent.written_bytes),
    }  # fmt: skip


def held_out_figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the figures of the test split by name."""
    return {f"test/{name}": value for name, value in metrics.items() if math.isfinite(value)}


def settings_of(plan: Plan) -> dict[str, Setting]:
    """Return what a plan decided, flat, each by its path.

    >>> sorted(_flat({"a": {"b": 1}, "c": (1, 2)}))
    ['a.b', 'c']
    """
    return _flat(plan.model_dump(mode="python", exclude=_NO_SETTINGS))


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for name, value in values.items():
        # a pattern of names may hold a sign that a writer refuses
        path = f"{before}{_ODD.sub('_', str(name))}"
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{path}."))
        elif isinstance(value, bool | int | str):
            found[path] = value[:LONGEST] if isinstance(value, str) else value
        elif isinstance(value, float):
            found[path] = value if math.isfinite(value) else str(value)
        elif value is not None:
            found[path] = str(value)[:LONGEST]
    return found
