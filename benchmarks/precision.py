"""Whether each precision learns what fp32 learns: four small real jobs, the same seeds at every precision.

    python -m benchmarks.precision [--quick] [--seeds N] [--resume] [--gpu]

A precision is proven for a family of models when it is not worse than fp32 by more than another seed would be: the mean
of what it loses against fp32, seed by seed, lies under twice the standard deviation of the seeds of fp32, and so does
the upper bound of that mean at 95 % (one-sided, Student's t of as many seeds as ran). Two seeds of fp32 differ by up to
2.8 standard deviations in 19 of 20 cases. The same seed draws the same weights and the same order of the data at every
precision; held out is the same for all. The figure is that of the last step, on accuracy or on the loss of a language
model. `thrifty.planner.proven` holds what came of it.

On a CPU fp16 is tried where it takes no longer than the rest: convolutions take a hundred times as long, and attention
over padded texts twice. fp8 needs a GPU.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import real_data
from benchmarks.figures import conclude
from benchmarks.kept import Kept
from benchmarks.race import Race, asked_of, told
from thrifty import hardware, models
from thrifty.data import Store, prepare
from thrifty.models.init import initialise
from thrifty.planner import plan as planned
from thrifty.spec import Device, Job, Plan, Spent, raw_data
from thrifty.spec.events import Evaluated, Event
from thrifty.spec.folders import cache_folder
from thrifty.train import train

SEEDS = 5
CPU = ("bf16", "bf16_compensated", "bf16_stochastic", "fp16")
GPU = (*CPU, "fp8")
CONFIDENCE, MARGIN = 0.95, 2.0


@dataclass(frozen=True)
class Course:
    """A job of one family.

    Attributes:
        data, model, training: of the job; ``size`` changes the model's arguments.
        figure: held-out, of the last step.
        higher_is_better: its direction.
        slow: precisions that this family takes too long in on a CPU.
    """

    data: Callable[[], dict[str, Any]]
    model: str
    training: dict[str, Any]
    figure: str = "accuracy"
    higher_is_better: bool = True
    slow: tuple[str, ...] = ()
    size: dict[str, int] = field(default_factory=dict)


COURSES: dict[str, Course] = {
    "mlp": Course(
        lambda: {"kind": "image", "path": str(digits()), "split": {"validation": 0.25, "test": 0.05}},
        "mlp-small",
        {"epochs": 6, "evaluations": 6, "batch": 64, "learning_rate": 1e-3},
    ),
    "resnet": Course(
        lambda: {"kind": "image", "path": str(pictures()), "split": {"validation": 0.25, "test": 0.05}},
        "resnet8",
        {"epochs": 12, "evaluations": 12, "batch": 64, "optimizer": "nesterov", "learning_rate": 0.05, "momentum": 0.9},
        slow=("fp16",),
    ),
    "bert": Course(
        lambda: {"kind": "text", "path": str(real_data.shared("sst2")), "vocabulary": 4096},
        "bert-tiny",
        {"epochs": 2, "evaluations": 2, "batch": 32, "learning_rate": 1e-3, "schedule": "linear", "warmup": 0.1},
        slow=("fp16",),
    ),
    "gpt": Course(
        lambda: dict(
            zip(("path", "split"), map(_plain, real_data.shakespeare()), strict=True),
            kind="language",
            vocabulary=260,
            length=64,
        ),
        "gpt-nano",
        {"steps": 400, "batch": 12, "learning_rate": 1e-3, "warmup": 0.1, "evaluations": 1},
        figure="loss",
        higher_is_better=False,
        size={"layers": 3, "width": 128, "heads": 4},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What came of a precision in a family.

    Attributes:
        worse: mean of what it loses against fp32, in the figure's own unit.
        bound: of that mean, upwards.
        margin: that the bound may reach.
    """

    worse: float
    bound: float
    margin: float

    @property
    def proven(self) -> bool:
        """Whether it is not worse than fp32 by more than another seed would be."""
        return self.bound <= self.margin


def verdict(fp32: Sequence[float], other: Sequence[float], *, higher_is_better: bool) -> Verdict:
    """Compare a precision with fp32, seed by seed.

    >>> noise = [0.80, 0.82, 0.81, 0.79, 0.83]
    >>> verdict(noise, [each - 0.001 for each in noise], higher_is_better=True).proven
    True
    >>> verdict(noise, [each - 0.05 for each in noise], higher_is_better=True).proven
    False
    """
    sign = 1 if higher_is_better else -1
    lost = [sign * (mine - theirs) for mine, theirs in zip(fp32, other, strict=True)]
    error = statistics.stdev(lost) / math.sqrt(len(lost))
    from scipy import stats

    bound = statistics.fmean(lost) + float(stats.t.ppf(CONFIDENCE, len(lost) - 1)) * error
    return Verdict(statistics.fmean(lost), bound, MARGIN * statistics.stdev(fp32))


def digits(count: int = 8_000) -> Path:
    """Return MNIST's first training images, a folder a class."""
    import gzip

    import cv2

    folder = real_data.shared("mnist")

    def read(name: str, offset: int) -> np.ndarray:
        return np.frombuffer(gzip.open(folder / name).read(), np.uint8, offset=offset)

    def write(draft: Path) -> None:
        pixels = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)[:count]
        for number, (image, label) in enumerate(zip(pixels, read("train-labels-idx1-ubyte.gz", 8), strict=False)):
            (draft / str(label)).mkdir(exist_ok=True)
            cv2.imwrite(str(draft / str(label) / f"{number:05}.png"), image)

    return real_data.once(f"digits-{count}", write)


def pictures(each: int = 300) -> Path:
    """Return so many of CIFAR-10's training images of each class."""
    whole = real_data.cifar()

    def write(draft: Path) -> None:
        for folder in sorted(whole.iterdir()):
            (draft / folder.name).mkdir()
            for path in sorted(folder.glob("train-*"))[:each]:
                (draft / folder.name / path.name).write_bytes(path.read_bytes())

    return real_data.once(f"cifar10-{each}", write)


def plan_of(course: Course, device: Device, *, quick: bool) -> tuple[Plan, Store]:
    """Plan a course in fp32, the whole batch at once, and prepare its data."""
    training = dict(course.training)
    if quick:
        training.update({"steps": 60} if "steps" in training else {"epochs": 1, "evaluations": 1})
    job = Job.model_validate(
        {
            "name": "precision",
            "data": course.data(),
            "model": course.model,
            "train": training,
            "plan": {"precision": "fp32", "micro_batch": training["batch"], "checkpointing": "none", "threads": 1},
        }
    )
    store = prepare(raw_data(job), seed=0, cache=cache_folder(), emit=lambda event: None)
    plan = planned(job, store.dataset, device, key="precision", spent=Spent())
    arguments = {**plan.model.arguments, **course.size}
    changes = {
        "model": plan.model.model_copy(update={"arguments": arguments}),
        "rows": "all",
        "checkpoint_seconds": 1e9,
    }
    return plan.model_copy(update=changes), store


def last_figures(plan: Plan, store: Store) -> dict[str, float]:
    """Train by a plan, and return the held-out figures of the last step."""
    found: list[Evaluated] = []

    def note(event: Event) -> None:
        if isinstance(event, Evaluated):
            found.append(event)

    model = models.build(plan.model)
    initialise(model, plan.init, plan.seed)
    with tempfile.TemporaryDirectory(prefix="thrifty-bench-") as scratch:
        train(plan, model, store, Path(scratch), emit=note, spent=Spent)
    return found[-1].metrics


def measured(
    course: Course, name: str, device: Device, seeds: int, precisions: Sequence[str], kept: Kept, *, quick: bool
) -> dict[str, list[dict[str, float]]]:
    """The figures of every precision and seed of a course."""
    plan, store = plan_of(course, device, quick=quick)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        for precision in ("fp32", *precisions):
            each = plan.model_copy(update={"precision": precision, "seed": seed})
            make = lambda each=each: last_figures(each, store)  # noqa: E731
            figures = kept(f"{name}-{precision}-{seed}", dict[str, float], make)
            found.setdefault(precision, []).append(figures)
            told(f"{name} {precision} seed {seed}: {course.figure} {figures[course.figure]:.4f}")
    return found


def table(course: Course, runs: dict[str, list[dict[str, float]]]) -> list[str]:
    """The rows of a course in the report."""
    fp32 = [each[course.figure] for each in runs["fp32"]]
    rows = []
    for precision, figures in runs.items():
        values = [each[course.figure] for each in figures]
        cells = f"{statistics.fmean(values):.4f} | {statistics.stdev(values):.4f}"
        if precision == "fp32":
            rows.append(f"{precision} | {cells} | | | |")
            continue
        found = verdict(fp32, values, higher_is_better=course.higher_is_better)
        says = "yes" if found.proven else "**no**"
        rows.append(f"{precision} | {cells} | {found.worse:+.4f} | {found.bound:+.4f} | {found.margin:.4f} | {says}")
    return rows


def main() -> int:
    """Train, print the figures, and write the report; returns 1 where a precision is not proven."""
    asked = asked_of(__doc__, seeds=SEEDS, gpu="on this machine's GPU")
    asked.seeds = max(asked.seeds, 2)
    device = hardware.here(kind="cuda" if asked.gpu else "cpu")
    name = "precision" + "_gpu" * asked.gpu
    kept = Kept.of(f"{name}{'_quick' * asked.quick}", resume=asked.resume)
    samples: dict[str, list[float]] = {}
    lines = ["| family | figure | precision | mean | spread | worse | bound | margin | proven |"]
    lines += ["|---|---|---|---:|---:|---:|---:|---:|---|"]
    proven = True
    for family, course in COURSES.items():
        precisions = [each for each in (GPU if asked.gpu else CPU) if asked.gpu or each not in course.slow]
        runs = measured(course, family, device, asked.seeds, precisions, kept, quick=asked.quick)
        lines += [f"| {family} | {course.figure} | {row} |" for row in table(course, runs)]
        fp32 = [each[course.figure] for each in runs["fp32"]]
        for precision, figures in runs.items():
            values = [each[course.figure] for each in figures]
            samples[f"{family}_{precision}_{course.figure}"] = values
            if precision != "fp32":
                found = verdict(fp32, values, higher_is_better=course.higher_is_better)
                samples[f"{family}_{precision}_proven"] = [float(found.proven)]
                proven &= found.proven
    says = f"{__doc__}\n{asked.seeds} seeds. Spread: standard deviation over seeds.\n\n" + "\n".join(lines)
    return conclude(name, device, says, samples, Race({}, []), quick=asked.quick) or int(not proven)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.exit(main())
