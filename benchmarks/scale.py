"""How well the curve of small runs foretells a model eight times larger than any of them, on tinyshakespeare.

    python -m benchmarks.scale [--quick] [--seeds N] [--resume]

`thrifty scale` makes small runs of GPTs of 32 to about 100 wide, by muP's rates, compares rates at two widths, and fits
its curve. Then a GPT with at least eight times the parameters of the largest, embeddings left out in both, learns from
as much data as the longest of the small runs, at the rate that was carried to it; its validation loss is set beside
what the curve said before. ``scale_error`` is the difference as a share of the loss; the bar is 0.03. Losses are in
nats a token, of a vocabulary of the bytes, the end of a text and three pairs.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks import real_data
from benchmarks.figures import conclude, spread
from benchmarks.kept import Kept
from benchmarks.race import Race, asked_of, told
from thrifty import api, hardware
from thrifty.models.sized import Shape
from thrifty.scale import Family
from thrifty.scale.scale import next_job
from thrifty.spec import Dataset, load_job
from thrifty.spec.scaling import Buy, Scaled, Size

BAR = 0.03
LARGER = 8
# the budget decides how large the small runs are for their data: so that eight times the largest can be trained here
BUDGET, FIT = "3e13flop", "6min"
QUICK_BUDGET, QUICK_FIT = "1e14flop", "150s"
VOCABULARY, LENGTH, BATCH = 260, 64, 16


def job(seed: int) -> dict[str, Any]:
    """The job of the family: of heads 16 wide, so that there are small ones."""
    path, split = real_data.shakespeare()
    return {
        "name": "shakespeare",
        "data": {
            "kind": "language",
            "path": str(path.resolve()),
            "split": split,
            "vocabulary": VOCABULARY,
            "length": LENGTH,
        },
        "model": "gpt-nano@4x128x8",
        "train": {"batch": BATCH, "seed": seed},
    }


def larger(family: Family, least: int) -> Size:
    """Return the smallest size of the family's whole heads with so many parameters; not only a root of two wider."""
    around = next(shape for shape in family.shapes if family.size(shape).parameters >= least)
    widths = range(family.head_width, around.width + 1, family.head_width)
    shapes = (Shape(around.layers, width, width // family.head_width) for width in widths)
    return next(size for size in map(family.size, shapes) if size.parameters >= least)


def foretold(seed: int, folder: Path, *, quick: bool) -> dict[str, float]:
    """Fit the curve to small runs, train the larger model, and return what was said of it beside what it reached."""
    path = folder / "shakespeare.yaml"
    path.write_text(yaml.safe_dump(job(seed)), encoding="utf-8")
    budget, fit = (QUICK_BUDGET, QUICK_FIT) if quick else (BUDGET, FIT)
    scaled = api.scale(path, budget=budget, fit=fit, runs=folder / "runs")
    runs = [run for run in scaled.runs if run.use == "curve"]
    most = max(runs, key=lambda run: (run.size.parameters, run.data))
    dataset = Dataset.model_validate_json((Path(most.folder) / "dataset.json").read_bytes())
    size = larger(Family(load_job(path), dataset), LARGER * most.size.parameters)
    said = scaled.curve.loss(size.parameters, most.data)
    reached, seconds = trained(path, scaled, size, most.steps)
    told(
        f"seed {seed}: {size.model}, {size.parameters / most.size.parameters:.1f} times {most.size.model}: said "
        f"{said.value:.4f} ({said.low:.4f} to {said.high:.4f}), reached {reached:.4f}; {scaled.carried.says}"
    )
    return {
        "scale_error": abs(said.value / reached - 1),
        "scale_error_signed": said.value / reached - 1,
        "scale_inside": float(said.low <= reached <= said.high),
        "scale_width": said.high / said.low - 1,
        "scale_said": said.value,
        "scale_reached": reached,
        "scale_times_larger": size.parameters / most.size.parameters,
        "scale_mup_agreed": float(scaled.carried.how == "mup"),
        "scale_small_runs": float(len(scaled.runs)),
        "scale_small_seconds": scaled.spent.wall_s + scaled.reused.wall_s,
        "scale_foreseen_seconds": scaled.foreseen.value,
        "scale_fit_seconds": scaled.fit.wall_s,
        "scale_large_seconds": seconds,
        "scale_noise": scaled.curve.noise,
        "scale_size_power": scaled.curve.law.size_power,
        "scale_data_power": scaled.curve.law.data_power,
        "scale_floor": scaled.curve.law.floor,
    }


def trained(path: Path, scaled: Scaled, size: Size, steps: int) -> tuple[float, float]:
    """Train a size for so many steps as the small runs were; return its validation loss and its seconds."""
    rate = scaled.carried.at(size.width)
    offer = Buy(
        size=size,
        steps=steps,
        batch=BATCH,
        data=float(steps * BATCH * LENGTH),
        epochs=0.0,
        learning_rate=rate,
        loss=scaled.curve.loss(size.parameters, steps * BATCH * LENGTH),
        flops=0.0,
    )
    wanted = next_job(load_job(path), offer, scaled.carried.init)
    train = wanted.train.model_copy(update={"evaluations": 1, "patience": 0})
    file = path.with_name("larger.yaml")
    plain = wanted.model_copy(update={"name": "larger", "train": train})
    file.write_text(yaml.safe_dump(plain.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    outcome = api.run(file, runs=path.parent / "runs")
    return outcome.result.validation["loss"], outcome.entry.total.wall_s


def main() -> int:
    """Fit, train, print the figures, and write the report."""
    asked = asked_of(__doc__, seeds=3)
    real_data.shared("tinyshakespeare/input.txt")
    device = hardware.here(kind="cpu")
    kept = Kept.of(f"scale{'_quick' * asked.quick}", resume=asked.resume)
    samples: dict[str, list[float]] = {}
    for seed in range(asked.seeds):

        def figures(seed: int = seed) -> dict[str, float]:
            with tempfile.TemporaryDirectory(prefix="thrifty-scale-") as folder:
                return foretold(seed, Path(folder), quick=asked.quick)

        for name, value in kept(f"seed-{seed}", dict[str, float], figures).items():
            samples.setdefault(name, []).append(value)
    worst, inside = max(samples["scale_error"]), sum(samples["scale_inside"])
    says = (
        f"{__doc__}\nSeeds: {asked.seeds}. The curve was off by {statistics.median(samples['scale_error']):.1%} in the "
        f"median, {worst:.1%} at worst ({'within' if worst <= BAR else 'past'} the bar of {BAR:.0%}); the loss lay in "
        f"its interval {inside:.0f} of {asked.seeds} times. Small runs took {spread(samples['scale_small_seconds'])} "
        f"s, priced at {spread(samples['scale_foreseen_seconds'])} s before; deciding and fitting "
        f"{spread(samples['scale_fit_seconds'])} s; the larger model {spread(samples['scale_large_seconds'])} s."
    )
    assert all(map(math.isfinite, samples["scale_error"]))
    return conclude("scale", device, says, samples, Race({}, []), quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
