"""Fit the calibrations of catalogue devices on half the rows of the published tables, and write them with residuals."""

from __future__ import annotations

import argparse
import datetime
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.tables import PUBLISHED, Row, read_tables, scored_rows
from thrifty.cost.calibrations import Calibration
from thrifty.cost.cluster import step_breakdown

SHIPPED = Path(__file__).parent.parent / "src" / "thrifty" / "cost" / "calibration"

# What is fitted, where it starts, and how far from there it is taken to be (standard deviation of its logarithm, or of
# its logit for shares that lie between 0 and 1). A table says little of some of them: there the start decides.
PRIORS: dict[str, tuple[float, float]] = {
    "matmul": (0.72, 0.25),
    "matmul_fp8": (0.6, 0.3),
    "attention": (0.5, 0.35),
    "memory": (0.75, 0.3),
    "unaligned": (3.0, 0.5),
    "launch_s": (8e-6, 0.8),
    "intra": (0.7, 0.4),
    "inter": (0.7, 0.4),
    "pipeline": (0.7, 0.5),
    "latency_s": (1e-5, 0.7),
    "data_overlap": (0.8, 1.0),
    "tensor_overlap": (0.2, 1.0),
    "step_s": (0.01, 1.0),
    "optimizer_passes": (40.0, 0.3),
}
SHARES = ("data_overlap", "tensor_overlap", "matmul", "matmul_fp8", "attention", "memory")
NOISE = 0.05


def name_of(row: Row) -> str:
    """The calibration that prices a row: of its device's family, software and date."""
    assert row.cluster is not None
    return f"{row.cluster.device.calibration} / {row.software}"


def predict(row: Row, calibration: Calibration) -> float:
    """Seconds of a row's step; where the source tuned what it does not state, of the fastest choice."""
    assert row.shape is not None and row.cluster is not None
    return min(step_breakdown(row.shape, layout, row.cluster, calibration, row.shard).seconds for layout in row.layouts)


def _free(rows: Sequence[Row]) -> list[str]:
    """The parameters that these rows can tell anything of."""
    layouts = [layout for row in rows for layout in row.layouts]
    across = any(row.cluster is not None and row.cluster.nodes > 1 for row in rows)
    free = ["matmul", "memory", "launch_s", "step_s"]
    if any(layout.precision == "fp8" for layout in layouts):
        free.append("matmul_fp8")
    if any(layout.flash for layout in layouts):
        free.append("attention")
    elif any(row.shape is not None and row.shape.head_dim % 8 for row in rows):
        free.append("unaligned")
    if any(layout.devices > 1 for layout in layouts):
        free += ["latency_s", "intra"]
    if any(layout.data > 1 for layout in layouts):
        free.append("data_overlap")
    if any(layout.tensor > 1 for layout in layouts):
        free.append("tensor_overlap")
    if across:
        free.append("inter")
    if any(layout.pipeline > 1 for layout in layouts):
        free.append("pipeline")
    return [*free, "optimizer_passes"]


def _there(name: str, value: float) -> float:
    return math.log(value / (1 - value)) if name in SHARES else math.log(value)


def _back(name: str, value: float) -> float:
    return 1 / (1 + math.exp(-value)) if name in SHARES else math.exp(value)


def fit(name: str, rows: Sequence[Row], start: Calibration | None = None) -> Calibration:
    """Fit one calibration to rows, by least squares of logarithms with priors, outliers counting less."""
    family, software = name.split(" / ")
    base = start or Calibration(name=name, family=family, software=software, **{k: v for k, (v, _) in PRIORS.items()})
    free = _free(rows)
    means = np.array([_there(key, getattr(base, key)) for key in free])
    widths = np.array([PRIORS[key][1] for key in free])
    # Configurations measured again count once.
    repeats = defaultdict(int)
    for row in rows:
        repeats[row.key] += 1
    weights = np.array([1 / repeats[row.key] ** 0.5 for row in rows])

    def calibration(x: NDArray[np.float64]) -> Calibration:
        return base.model_copy(update={key: _back(key, value) for key, value in zip(free, x, strict=True)})

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        tried = calibration(x)
        errors = np.array([math.log(predict(row, tried) / (row.step_seconds or 1)) for row in rows]) / NOISE
        # Outliers count by the square root of what they would.
        soft = np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1)) * weights
        return np.concatenate([soft, (x - means) / widths])

    found = least_squares(residuals, means, method="trf", diff_step=1e-3, max_nfev=40)
    return calibration(found.x)


def _covers(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    seen = defaultdict(list)
    for row in rows:
        assert row.shape is not None
        layout = row.layout
        for key, value in (
            ("devices", layout.devices), ("hidden", row.shape.hidden), ("length", row.shape.length),
            ("tensor", layout.tensor), ("pipeline", layout.pipeline), ("experts", row.shape.experts),
            ("micro_batch", layout.micro_batch),
        ):  # fmt: skip
            seen[key].append(float(value))
    return {key: (min(values), max(values)) for key, values in seen.items()}


def fit_all(rows: Sequence[Row]) -> list[Calibration]:
    """Fit every calibration that the rows speak of, on the half of them marked for it."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.fitted:
            groups[name_of(row)].append(row)
    fitted = []
    for name, members in sorted(groups.items()):
        calibration = fit(name, members)
        errors = [math.log((row.step_seconds or 1) / predict(row, calibration)) for row in members]
        # Robust, and honest about few rows: the fit has used up some of their freedom.
        spread = 1.4826 * float(np.median(np.abs(errors))) + 0.05 / len(errors) ** 0.5
        tables = sorted({row.table for row in members})
        fitted.append(
            calibration.model_copy(
                update={
                    "fitted": datetime.datetime.now(datetime.UTC).date().isoformat(),
                    "source": f"{', '.join(tables)}: {len(members)} rows",
                    "spread": round(max(spread, 0.03), 4),
                    "covers": _covers(members),
                }
            )
        )
        print(name, len(members), "rows; spread", round(spread, 4), flush=True)
    return fitted


def write(calibrations: Sequence[Calibration], folder: Path = SHIPPED) -> None:
    """Write one file a family."""
    families: dict[str, list[Calibration]] = defaultdict(list)
    for calibration in calibrations:
        families[calibration.family].append(calibration)
    folder.mkdir(exist_ok=True)
    for family, members in families.items():
        values = [
            {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in member.model_dump().items()}
            for member in members
        ]
        (folder / f"{family}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, default=PUBLISHED)
    folder = parser.parse_args().tables
    write(fit_all(list(scored_rows(read_tables(folder)))))


if __name__ == "__main__":
    main()
