"""Fit the calibrations of catalogue devices on half the rows of the published tables, and write them with residuals."""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.pricing import name_of, predict
from benchmarks.tables import PUBLISHED, Row, read_tables, scored_rows
from thrifty.cost.calibrations import Calibration
from thrifty.cost.kernels import Kernel, Kernels, kernel_seconds, rates_of
from thrifty.hardware.cluster import find_device
from thrifty.spec import Device

SHIPPED = Path(__file__).parent.parent / "src" / "thrifty" / "cost" / "calibration"

# What is fitted, where it starts, and how far from there it is taken to be (standard deviation of its logarithm, or of
# its logit for shares that lie between 0 and 1). A table says little of some of them: there the start decides.
PRIORS: dict[str, tuple[float, float]] = {
    "matmul": (0.72, 0.5),
    "matmul_fp8": (0.6, 0.5),
    "matmul_fp32": (0.7, 1.0),
    "grouped": (0.8, 0.5),
    "attention": (0.5, 0.7),
    "memory": (0.75, 0.5),
    "unaligned": (8.0, 0.5),  # vector units instead of tensor cores: a quarter of the peak, and less of it reached
    "launch_s": (4e-5, 0.8),
    "routing_s": (3e-4, 1.2),
    "intra": (0.7, 0.8),
    "inter": (0.7, 0.8),
    "pipeline": (0.7, 0.8),
    "exchange": (0.6, 0.6),
    "latency_s": (1.5e-5, 0.7),
    "data_overlap": (0.8, 1.0),
    "tensor_overlap": (0.2, 1.0),
    "step_s": (0.01, 1.0),
    "optimizer_passes": (40.0, 0.3),
}
SHARES = (
    "matmul", "matmul_fp8", "matmul_fp32", "grouped", "attention", "memory", "intra", "inter", "pipeline",
    "data_overlap", "tensor_overlap",
)  # fmt: skip

NOISE = 0.05
# What is known of a stack beyond its tables, by how its name begins: Megatron's own data parallelism of those years
# sums fp16 gradients as they are, after the last backward (megatron/model/distributed.py), DeepSpeed's ZeRO-1 likewise;
# Megatron-Bridge replays CUDA graphs. BLOOM's plans were measured with CUDA_LAUNCH_BLOCKING=1 against hangs (what its
# chronicles call async=no), recalled and not read again: that the fit then finds the same 60 us a launch as on vTrain's
# single node speaks for it.
FACTS: dict[str, dict[str, float]] = {
    "megatron 20": {"gradient_bytes": 2.0, "data_overlap": 0.05},
    "megatron-deepspeed": {"gradient_bytes": 2.0, "data_overlap": 0.05},
    "megatron-deepspeed 2022": {"blocking": 1.0},
    "megatron-bridge": {"launch_s": 1e-5},
}
# How products end, by ``--products``: from the micro-benchmarks of simumax_op_efficiency.csv on an A100 and a B200;
# between the two where there are none.
PRODUCTS = {"a100": {"wave_loss": 0.55, "inner_half": 145.0}, "blackwell": {"wave_loss": 0.09, "inner_half": 149.0}}


def _free(rows: Sequence[Row]) -> list[str]:
    """The parameters that these rows can tell anything of."""
    layouts = [layout for row in rows for layout in row.layouts]
    across = any(row.cluster is not None and row.cluster.nodes > 1 for row in rows)
    free = ["memory", "launch_s", "step_s"]
    if any(layout.precision != "fp32" for layout in layouts):
        free.append("matmul")
    if any(layout.precision == "fp32" for layout in layouts):
        free.append("matmul_fp32")
    if any(row.shape is not None and row.shape.experts for row in rows):
        free += ["grouped", "exchange", "routing_s"]
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


def fit(
    name: str,
    rows: Sequence[Row],
    start: Calibration | None = None,
    *,
    hold: float = 1.0,
    only: Collection[str] = PRIORS.keys(),
) -> Calibration:
    """Fit one calibration to rows, by least squares of logarithms with priors, outliers counting less.

    Args:
        name: of the result.
        rows: with measured times.
        start: what the priors are centred on; by default `PRIORS`.
        hold: times the width of the priors. 1 for a stack of its own, on which `FACTS` may be known; less for one
            device or release of a stack that ``start`` was fitted to.
        only: the parameters that may move.
    """
    family, software = name.split(" / ")
    base = start or Calibration(name=name, family=family, software=software, **{k: v for k, (v, _) in PRIORS.items()})
    if hold == 1.0:
        facts = [known for prefix, known in FACTS.items() if software.startswith(prefix)]
        facts.append(PRODUCTS.get(GENERATIONS.get(family, family), {}))
        base = base.model_copy(update={key: value for known in facts for key, value in known.items()})
    base = base.model_copy(update={"name": name, "family": family, "software": software})
    free = [key for key in _free(rows) if key in only]
    means = np.array([_there(key, getattr(base, key)) for key in free])
    widths = np.array([PRIORS[key][1] * hold for key in free])
    # Configurations measured again count once.
    repeats: dict[str, int] = defaultdict(int)
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

    found = least_squares(residuals, means, method="trf", diff_step=1e-3, max_nfev=30)
    return calibration(found.x)


def spread_of(rows: Sequence[Row], calibration: Calibration, start: Calibration | None, hold: float) -> float:
    """Return the spread of measured over predicted, each half of the rows predicted by a fit to the other half.

    It is a ninth decile over 1.645, so that the intervals hold nine in ten of what was left out, tails and all.
    """
    errors = []
    halves = [rows[0::2], rows[1::2]]
    for told, left in (halves, halves[::-1]) if len(rows) >= 8 else ((rows, rows),):
        fitted = fit(calibration.name, told, start, hold=hold) if len(rows) >= 8 else calibration
        errors += [abs(math.log((row.step_seconds or 1) / predict(row, fitted))) for row in left]
    few = 1 + 2 / len(rows) if len(rows) >= 8 else 1.5
    return max(0.03, float(np.quantile(errors, 0.9)) / 1.645 * few)


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


# Devices of one generation teach each other: fits of one of them start from the fit of all.
GENERATIONS = {"b200": "blackwell", "b300": "blackwell", "gb200": "blackwell", "gb300": "blackwell", "tpu-v4": "tpu",
               "tpu-v5e": "tpu", "tpu-v5p": "tpu", "tpu-v6e": "tpu"}  # fmt: skip
# What is nearest to devices that no table covers, and how wide its intervals become (standard deviation of a
# logarithm): a guess, made wider the less the two have in common.
NEAREST = {"h200": ("h100", 0.15), "tpu-v6e": ("tpu", 0.2), "ada": ("a100", 0.25), "ampere-small": ("a100", 0.25),
           "turing": ("v100", 0.4), "cdna": ("a100", 0.3)}  # fmt: skip
# Processors: shares of datasheet peaks as measured on one machine with AMX (../shared/facts.md: 1.68 of 3.4 TFLOP/s in
# bf16 products, 0.16 of 0.22 in fp32, 27 GB/s of a copy), taken for all; no table of training runs covers them.
PROCESSORS = ("cpu-amx", "cpu-avx512", "cpu-avx2", "cpu-arm")
# Stacks of fewer rows are left to the default of their device; of fewer than enough, start from it.
LEAST, ENOUGH = 3, 8


PART = 0.4

# What the software of expert parallelism changes from release to release.
EXPERTS = ("routing_s", "exchange", "grouped")


def _generation(row: Row) -> str:
    family = name_of(row).split(" / ")[0]
    return GENERATIONS.get(family, family)


def _stack(row: Row) -> tuple[str, str]:
    """The generation of a row's device, and its software without the date of a release."""
    for several in ("megatron-bridge", "megatron-deepspeed 2022-02", "megatron 2021"):
        if row.software.startswith(several):
            return _generation(row), several
    return _generation(row), row.software


def _finished(
    rows: Sequence[Row], calibration: Calibration, start: Calibration | None, hold: float = 1.0
) -> Calibration:
    spread = spread_of(rows, calibration, start, hold)
    tables = ", ".join(sorted({row.table for row in rows}))
    print(f"{calibration.name}: {len(rows)} rows, spread {spread:.3f}", flush=True)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    update = {"fitted": today, "source": f"{tables}: {len(rows)} rows", "spread": spread, "covers": _covers(rows)}
    return calibration.model_copy(update=update)


def fit_all(rows: Sequence[Row]) -> list[Calibration]:
    """Fit every calibration that the rows speak of, on the half of them marked for it, and the defaults of families."""
    told = [row for row in rows if row.fitted]
    stacks: dict[tuple[str, str], list[Row]] = defaultdict(list)
    generations: dict[str, list[Row]] = defaultdict(list)
    for row in told:
        stacks[_stack(row)].append(row)
        generations[_generation(row)].append(row)
    pooled: dict[str, Calibration] = {}
    for generation, members in sorted(generations.items()):
        if len(members) >= LEAST:
            pooled[generation] = _finished(members, fit(f"{generation} / default", members), None)
    made = []
    for (generation, software), members in sorted(stacks.items()):
        if len(members) < LEAST:
            continue  # left to the default of its family
        start = pooled.get(generation) if len(members) < ENOUGH else None
        together = fit(f"{generation} / {software}", members, start)
        parts: dict[str, list[Row]] = defaultdict(list)
        for row in members:
            parts[name_of(row)].append(row)
        if len(parts) == 1:
            name = name_of(members[0])
            only = together.model_copy(update={"name": name, "family": name.split(" / ")[0]})
            made.append(_finished(members, only, start))
            continue
        for release in sorted({row.software for row in members}):
            mixtures = [row for row in members if row.software == release and row.shape and row.shape.experts]
            begun = together
            if "tokens dropped" in release:  # experts take fixed numbers of tokens: there is nothing to wait for
                begun = together.model_copy(update={"routing_s": 1e-4})
            name = f"{generation} / {release}"
            dated = fit(name, mixtures, begun, hold=PART, only=EXPERTS) if mixtures else begun
            for family in sorted({name_of(row).split(" / ")[0] for row in members}):
                name = f"{family} / {release}"
                if name in parts:
                    made.append(_finished(parts[name], fit(name, parts[name], dated, hold=PART), dated, PART))
                else:
                    whole = _finished(
                        members, dated.model_copy(update={"name": name, "family": family}), together, PART
                    )
                    made.append(whole)
    for family in sorted({*pooled, *GENERATIONS} - set(GENERATIONS.values()) - set(NEAREST)):
        near = GENERATIONS.get(family, family)
        if near not in pooled:
            continue
        made.append(
            pooled[near].model_copy(update={"name": f"{family} / default", "family": family, "software": "default"})
        )
    for family, (near, spread) in NEAREST.items():
        if near not in pooled:
            continue
        update = {"source": f"assumed, as {near}: {pooled[near].source}", "spread": max(spread, pooled[near].spread)}
        made.append(_assumed(pooled[near], family, update))
    processor = Calibration(
        name="", family="", software="", matmul=0.5, matmul_fp32=0.75, attention=0.15, memory=0.7, launch_s=5e-6,
        data_overlap=0.5, step_s=0.001, spread=0.4, source="assumed, as one machine with AMX, see ../shared/facts.md",
    )  # fmt: skip
    made += [_assumed(processor, family, {}) for family in PROCESSORS]
    return made


def _assumed(calibration: Calibration, family: str, update: dict[str, object]) -> Calibration:
    named = {"name": f"{family} / default", "family": family, "software": "default", "fitted": "", "covers": {}}
    return calibration.model_copy(update=named | update)


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


def fit_products(folder: Path = PUBLISHED) -> None:
    """Fit efficiency, inner half and wave loss of products to simumax_op_efficiency.csv, and print them with errors."""
    with (folder / "simumax_op_efficiency.csv").open(encoding="utf-8", newline="") as file:
        said = [row for row in csv.DictReader(file) if row["op"] == "matmul" and float(row["measured_efficiency"]) > 0]
    for system, device in (("a100_pcie", "a100-pcie-80g"), ("b200", "b200")):
        rows = [row for row in said if row["system"].startswith(system)]
        sides = [dict(re.findall(r"(\w+)=(\d+)", row["shape_key"])) for row in rows]
        products = []
        for each in sides:
            b, m, n, k = (float(each[side]) for side in "bmnk")
            products.append(Kernel(0, "matmul", 2 * b * m * n * k, 2 * b * (m * k + k * n + m * n), b, m, n, k))
        kernels = Kernels(products, 1)
        kernels.grouped[:] = False
        chip = find_device(device)
        ideal = kernels.flops / chip.flops_per_second["bf16"].value
        measured = ideal / np.array([float(row["measured_efficiency"]) for row in rows])

        def errors(
            x: NDArray[np.float64],
            kernels: Kernels = kernels,
            chip: Device = chip,
            measured: NDArray[np.float64] = measured,
        ) -> NDArray[np.float64]:
            told = {"matmul": _back("matmul", x[0]), "inner_half": math.exp(x[1]), "wave_loss": _back("matmul", x[2])}
            tried = Calibration(name="", family="", software="", memory=0.8, **told)
            return np.log(kernel_seconds(kernels, rates_of(chip, tried, "bf16")) / measured)

        found = least_squares(lambda x: np.append(errors(x), x[2] / 3), [1.0, 5.0, 0.0], loss="soft_l1", f_scale=0.05)
        wrong = np.abs(np.expm1(errors(found.x)))
        print(
            f"{system}: {len(rows)} products; matmul {_back('matmul', found.x[0]):.3f}, inner_half "
            f"{math.exp(found.x[1]):.0f}, wave_loss {_back('matmul', found.x[2]):.2f}; median error "
            f"{np.median(wrong):.1%}, ninth decile {np.quantile(wrong, 0.9):.1%}"
        )


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, default=PUBLISHED)
    parser.add_argument("--products", action="store_true", help="fit matrix products to micro-benchmarks, and print")
    asked = parser.parse_args()
    if asked.products:
        fit_products(asked.tables)
    else:
        write(fit_all(list(scored_rows(read_tables(asked.tables)))))


if __name__ == "__main__":
    main()
