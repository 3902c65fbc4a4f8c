"""What accuracy the field expects of a data set, reached from its raw files by one job; each alone.

    python -m benchmarks.accuracy NAME [--quick] [--seeds N] [--resume]

NAME is of a data set: mnist, cifar.

The job is what ``thrifty init`` writes for the folder, and what is said here beside it. Time is of the whole process:
planning, training, validating, the test split, the bundle; files were prepared before. Accuracy is of the test split.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import real_data
from benchmarks.figures import conclude, notes, spread
from benchmarks.kept import Kept
from benchmarks.race import Entrant, Race, asked_of, ours, race, told
from thrifty import hardware
from thrifty.api import silent
from thrifty.data import prepare
from thrifty.data.look import look
from thrifty.spec import parse_job, raw_data
from thrifty.spec.folders import cache_folder

QUICK_STEPS = 20


@dataclass(frozen=True)
class Subject:
    """A data set and what is asked of it.

    Attributes:
        folder: returns where its raw files lie.
        more: sections of the job beside what ``thrifty init`` writes.
        figure: of the test split.
        most_s: seconds that a run may take.
    """

    folder: Callable[[], Path]
    more: Mapping[str, Any]
    figure: str
    most_s: float


SUBJECTS: dict[str, Subject] = {
    "mnist": Subject(
        lambda: real_data.shared("mnist"),
        {"model": "resnet8", "train": {"epochs": 8, "augment": {"crop": 2}}},
        figure="accuracy",
        most_s=180.0,
    ),
    "cifar": Subject(
        lambda: real_data.shared("cifar10_jpeg"),
        {
            "model": "convnet-fast",
            "train": {
                "epochs": 10,
                "batch": 256,
                "optimizer": "nesterov",
                "learning_rate": 0.5,
                "momentum": 0.85,
                "weight_decay": 1e-3,
                "schedule": "linear",
                "warmup": 0.2,
                "clip": 0,
                "label_smoothing": 0.2,
                "augment": {"flip": True, "crop": 2},
            },
        },
        figure="accuracy",
        most_s=1200.0,
    ),
}


def job(subject: Subject, seed: int, *, quick: bool) -> dict[str, Any]:
    """What ``thrifty init`` writes, and what is asked beside it."""
    found = dict(look(subject.folder()).job)
    train = {**subject.more.get("train", {}), "seed": seed}
    if quick:
        train = {key: value for key, value in train.items() if key != "epochs"} | {"steps": QUICK_STEPS}
    return {**found, **subject.more, "train": train}


def runs(subject: Subject, *, quick: bool) -> Callable[[int], Sequence[Entrant]]:
    """One run a seed."""
    return lambda seed: [ours("ours", job(subject, seed, quick=quick))]


def figures(name: str, subject: Subject, found: Race) -> dict[str, list[float]]:
    """The figure of each seed, and the seconds that it took."""
    finishes = [run for run in found.of("ours") if run.first("done").get("test")]
    return {
        f"{name}_{subject.figure}": [float(run.first("done")["test"][subject.figure]) for run in finishes],
        f"{name}_seconds": [run.wall_s for run in finishes],
    }


def main() -> int:
    """Run each seed, print the figure, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, seeds=3, names=tuple(SUBJECTS))
    subject = SUBJECTS[asked.name]
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    kept = Kept.of(f"accuracy_{asked.name}{'_quick' * asked.quick}", resume=asked.resume)
    wanted = parse_job(job(subject, 0, quick=asked.quick))
    told(f"{asked.name}: preparing")
    store = prepare(raw_data(wanted), seed=wanted.train.seed, cache=cache_folder(), emit=silent)
    found = race(runs(subject, quick=asked.quick), asked.seeds, kept)
    samples = figures(asked.name, subject, found)
    steps = f"; `--quick`: {QUICK_STEPS} steps, which learn little" if asked.quick else ""
    said = yaml.safe_dump({key: value for key, value in job(subject, 0, quick=asked.quick).items() if key != "data"})
    says = (
        f"{__doc__}\n{store.dataset.counts['train']:,} samples to train on, {store.dataset.counts['test']:,} to test"
        f"{steps}. Seconds: {spread(samples[f'{asked.name}_seconds'])}, at most {subject.most_s:,.0f}.\n\n"
        f"```yaml\n{said}```\n\n{notes(found)}"
    )
    return conclude(f"accuracy_{asked.name}", device, says, samples, found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
