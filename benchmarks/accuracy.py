"""What accuracy the field expects of a data set, reached from its raw files by one job; each alone.

    python -m benchmarks.accuracy NAME [--quick] [--seeds N] [--resume]

NAME is of a data set: mnist, cifar, sst2, douban, adult, california, shakespeare, fsdd, digits.

The job is what ``thrifty init`` writes for the folder, and what is said here beside it. Time is of the whole process:
planning, training, validating, the test split, the bundle; files were prepared before. Accuracy is of the test split;
of sst2 of the validation split, which the field compares by, after the last step alone. The loss of shakespeare is the
best of eight validations, in nats a character, on nearly the last tenth of the text, as nanoGPT's. Beside douban stands
a logistic regression on character n-grams; beside adult and california scikit-learn's HistGradientBoosting, on the same
rows of each seed, as it comes (``trees``) and with up to 1,000 rounds at half the rate (``more_trees``). A gap is by
how many percent ours is worse than it, negative where ours is better. Energy and money are those of the run's bill.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import digits, real_data
from benchmarks.baselines import boosted_trees, logistic_regression
from benchmarks.figures import best, conclude, notes, spread
from benchmarks.kept import Kept
from benchmarks.race import Entrant, Race, asked_of, ours, race, told
from thrifty import hardware
from thrifty.api import silent
from thrifty.data import Store, prepare
from thrifty.data.look import look
from thrifty.spec import METRICS, parse_job, raw_data
from thrifty.spec.folders import cache_folder

QUICK_STEPS = 20
# of words by speakers who are known, and of strings by one who is not
SPEECH_MILD = {"stretch": 0.1, "warp": 0.05, "colour": 0.3, "blank_bands": 6, "blank_frames": 6}
SPEECH_STRONG = {
    "stretch": 0.2, "warp": 0.12, "colour": 0.7, "noise": 15, "blank_bands": 8, "blank_frames": 10,
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A data set and what is asked of it.

    Attributes:
        folder: returns where its raw files lie, for a seed.
        more: sections of the job beside what ``thrifty init`` writes.
        figure: that is measured.
        most_s: seconds that a run may take.
        split: of which the figure is.
        seeds: that the figure is the median of, where nobody asks for another number.
        beside: returns figures of another way, measured in the same process, by name.
        rivals: returns the same figure of other ways on the rows of one seed, by name; ours is compared with each.
    """

    folder: Callable[[int], Path]
    more: Mapping[str, Any]
    figure: str
    most_s: float
    split: str = "test"
    seeds: int = 3
    beside: Callable[[], dict[str, float]] = dict
    rivals: Callable[[Store], dict[str, float]] = lambda store: {}


SUBJECTS: dict[str, Subject] = {
    "mnist": Subject(
        lambda seed: real_data.shared("mnist"),
        {"model": "resnet8", "train": {"epochs": 7, "augment": {"crop": 2}, "label_smoothing": 0.1}},
        figure="accuracy",
        most_s=180.0,
    ),
    "cifar": Subject(
        lambda seed: real_data.shared("cifar10_jpeg"),
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
        seeds=1,
    ),
    "sst2": Subject(
        lambda seed: real_data.shared("sst2"),
        {
            "train": {
                "epochs": 6, "batch": 64, "learning_rate": 2e-3, "schedule": "linear", "warmup": 0.1, "evaluations": 1,
            },
        },
        figure="accuracy",
        most_s=300.0,
        seeds=5,
        split="validation",
    ),
    "douban": Subject(
        lambda seed: real_data.shared("douban_book_review"),
        {
            "train": {
                "epochs": 3, "batch": 64, "learning_rate": 2e-3, "schedule": "linear", "warmup": 0.1, "evaluations": 3,
            },
        },
        figure="accuracy",
        most_s=600.0,
        seeds=5,
        beside=lambda: logistic_regression(real_data.shared("douban_book_review")),
    ),
    "adult": Subject(lambda seed: real_data.shared("adult"), {}, figure="auc", most_s=300.0, rivals=boosted_trees),
    "california": Subject(
        lambda seed: real_data.shared("california_housing"), {}, figure="rmse", most_s=300.0, rivals=boosted_trees
    ),
    "shakespeare": Subject(
        lambda seed: real_data.shared("tinyshakespeare"),
        {
            "model": "benchmarks.nets:gpt_4x128",
            "data": {"pieces": "characters", "length": 64, "split": {"validation": 0.1, "test": 0.001}},
            "train": {
                "steps": 2000, "batch": 12, "optimizer": "muon", "learning_rate": 0.01, "schedule": "cosine",
                "warmup": 0.05, "weight_decay": 0.1, "evaluations": 8,
            },
        },
        figure="loss",
        most_s=300.0,
        split="validation",
    ),
    # the official test split is takes 0 to 4
    "fsdd": Subject(
        lambda seed: real_data.shared("fsdd"),
        {
            "data": {"test": {"index": "0-4"}},
            "train": {"epochs": 60, "learning_rate": 2e-3, "label_smoothing": 0.1, "augment": SPEECH_MILD},
        },
        figure="accuracy",
        most_s=300.0,
    ),
    # each seed holds out another speaker
    "digits": Subject(
        digits.strings,
        {"train": {"epochs": 20, "learning_rate": 2e-3, "augment": SPEECH_STRONG}},
        figure="wer",
        most_s=900.0,
        seeds=6,
    ),
}  # fmt: skip


def job(subject: Subject, seed: int, *, quick: bool) -> dict[str, Any]:
    """What ``thrifty init`` writes, and what is asked beside it."""
    found = dict(look(subject.folder(seed)).job)
    train = {**subject.more.get("train", {}), "seed": seed}
    if quick:
        train = {key: value for key, value in train.items() if key != "epochs"} | {"steps": QUICK_STEPS}
    data = {**found["data"], **subject.more.get("data", {})}
    return {**found, **subject.more, "data": data, "train": train}


def runs(subject: Subject, *, quick: bool) -> Callable[[int], Sequence[Entrant]]:
    """One run a seed."""
    return lambda seed: [ours("ours", job(subject, seed, quick=quick))]


def figures(name: str, subject: Subject, found: Race) -> dict[str, list[float]]:
    """The figure of each seed, the seconds that it took, and its bill of energy and money."""
    finishes = [run for run in found.of("ours") if run.first("done").get("test")]
    values = (
        [float(run.first("done")["test"][subject.figure]) for run in finishes]
        if subject.split == "test"
        else [best(run, subject.figure, rising=subject.figure == "accuracy") for run in finishes]
    )
    return {
        f"{name}_{subject.figure}": values,
        f"{name}_seconds": [run.wall_s for run in finishes],
        f"{name}_joules": [float(run.first("done")["joules"]) for run in finishes],
        f"{name}_usd": [float(run.first("done")["usd"]) for run in finishes],
    }


def billed(found: Race) -> str:
    """How the bill was derived."""
    done = next((run.first("done") for run in found.of("ours")), {})
    return f"Energy: {done.get('joules_method', '')}. Money: {done.get('usd_method', '')}."


def stores(subject: Subject, seeds: Sequence[int], *, quick: bool) -> list[Store]:
    """The prepared data of each seed."""
    asked = [parse_job(job(subject, seed, quick=quick)) for seed in seeds]
    return [prepare(raw_data(each), seed=each.train.seed, cache=cache_folder(), emit=silent) for each in asked]


def gaps(name: str, subject: Subject, ours: Sequence[float], prepared: Sequence[Store]) -> dict[str, list[float]]:
    """The figures of each rival by seed, and by how many percent ours are worse."""
    found: dict[str, list[float]] = {}
    sign = -1 if METRICS[subject.figure].rises else 1
    for own, store in zip(ours, prepared, strict=True):
        for rival, figure in subject.rivals(store).items():
            found.setdefault(f"{name}_{subject.figure}_{rival}", []).append(figure)
            suffix = "" if rival == "trees" else f"_{rival}"
            found.setdefault(f"{name}_{subject.figure}_gap{suffix}", []).append(100 * sign * (own / figure - 1))
    return found


def main() -> int:
    """Run each seed, print the figure, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, seeds=None, names=tuple(SUBJECTS))
    subject = SUBJECTS[asked.name]
    seeds = subject.seeds if asked.seeds is None else asked.seeds
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    kept = Kept.of(f"accuracy_{asked.name}{'_quick' * asked.quick}", resume=asked.resume)
    told(f"{asked.name}: preparing")
    prepared = stores(subject, range(seeds), quick=asked.quick)
    store = prepared[0]
    found = race(runs(subject, quick=asked.quick), seeds, kept)
    samples = figures(asked.name, subject, found)
    samples |= {f"{asked.name}_{name}": [value] for name, value in subject.beside().items()}
    if not (asked.quick or found.failed):
        samples |= gaps(asked.name, subject, samples[f"{asked.name}_{subject.figure}"], prepared)
    steps = f"; `--quick`: {QUICK_STEPS} steps, which learn little" if asked.quick else ""
    said = yaml.safe_dump({key: value for key, value in job(subject, 0, quick=asked.quick).items() if key != "data"})
    says = (
        f"{__doc__}\n{store.dataset.counts['train']:,} samples to train on, {store.dataset.counts['test']:,} to test"
        f"{steps}. Seconds: {spread(samples[f'{asked.name}_seconds'])}, at most {subject.most_s:,.0f}.\n\n"
        f"{billed(found)}\n\n```yaml\n{said}```\n\n{notes(found)}"
    )
    return conclude(f"accuracy_{asked.name}", device, says, samples, found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
