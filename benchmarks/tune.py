"""Tuning: CPU-seconds to reach what 30 random trials reach, beside Optuna's TPE without pruning and Ray Tune's ASHA.

    python -m benchmarks.tune [--only SET …] [--quick] [--seeds N] [--resume]

Sets: sst2, mnist5k (the first 5,000 images), fsdd, adult; without ``--quick`` it takes hours. For each seed 30
configurations are drawn at random from the space that ``thrifty tune`` has for the job, and trained to their end: the
best validation figure among them is what all are to reach. Everybody has the same job, space, plans, training and
validations, one thread a trial, and is stopped by the first validation that reaches it; ours by the first part of a
trial that does. CPU-seconds are of the whole process: imports, planning, proposing, and for ours the study's database
and every best bundle. Of Ray they are of the driver and of the processes of the trials, each with its imports; what
Ray's own servers take is left out. A rival that does not reach it within its trials is charged for all of them.

``tune_cost_ratio`` is our CPU-seconds over those of Optuna, ``tune_cost_ratio_asha`` over Ray's: of each set the median
over its seeds, without a set's name that of the worst set.
"""

from __future__ import annotations

import gzip
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import conclude, notes
from benchmarks.kept import Kept
from benchmarks.race import Entrant, Race, asked_of, race
from benchmarks.real_data import once, shared
from thrifty import hardware
from thrifty.data.look import look

RANDOM_TRIALS, QUICK_TRIALS = 30, 6
# trials that rivals may take before they are given up, as many times those that the target is of
PATIENCE = 3
IMAGES, HELD_OUT_IMAGES = 5_000, 1_000
SEEDS = 5
WAYS = ("ours", "optuna", "asha")
# rivals, and the figure of our cost over theirs
RATIOS = {"optuna": "tune_cost_ratio", "asha": "tune_cost_ratio_asha"}


@dataclass(frozen=True)
class Subject:
    """A data set and what is asked of it.

    Attributes:
        folder: returns where its raw files lie.
        more: sections of the job beside what ``thrifty init`` writes.
        quick: of the section ``train``, with ``--quick``.
    """

    folder: Callable[[], Path]
    more: Mapping[str, Any]
    quick: Mapping[str, Any]


def mnist() -> Path:
    """Return the first images of MNIST as IDX files."""
    source = shared("mnist")

    def write(draft: Path) -> None:
        for split, count in (("train", IMAGES), ("t10k", HELD_OUT_IMAGES)):
            for kind, header, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
                name = f"{split}-{kind}-ubyte.gz"
                content = gzip.decompress((source / name).read_bytes())
                head = content[:4] + count.to_bytes(4, "big") + content[8:header]
                (draft / name).write_bytes(gzip.compress(head + content[header : header + count * size], mtime=0))

    return once(f"mnist-{IMAGES}", write)


SUBJECTS: dict[str, Subject] = {
    "sst2": Subject(lambda: shared("sst2"), {"train": {"epochs": 6}}, {"epochs": 2}),
    "mnist5k": Subject(mnist, {"model": "resnet8", "train": {"epochs": 9}}, {"epochs": 3}),
    "fsdd": Subject(
        lambda: shared("fsdd"), {"data": {"test": {"index": "0-4"}}, "train": {"epochs": 18}}, {"epochs": 3}
    ),
    "adult": Subject(lambda: shared("adult"), {"train": {"epochs": 9}}, {"epochs": 2}),
}


def job(subject: Subject, seed: int, *, quick: bool) -> dict[str, Any]:
    """What ``thrifty init`` writes, what is asked beside it, and one thread."""
    found = dict(look(subject.folder()).job)
    data = {**found["data"], **subject.more.get("data", {})}
    train = {**subject.more.get("train", {}), **(subject.quick if quick else {}), "seed": seed}
    return {**found, **subject.more, "data": data, "train": train, "plan": {"threads": 1}}


def entrant(name: str, way: str, seed: int, target: float, *, quick: bool) -> Entrant:
    """Somebody who tunes a set with a seed, in a process of its own."""
    trials = QUICK_TRIALS if quick else RANDOM_TRIALS
    course = {
        "way": way,
        "seed": seed,
        "job": job(SUBJECTS[name], seed, quick=quick),
        "target": target,
        "trials": trials if way == "random" else PATIENCE * trials,
    }
    command = (sys.executable, "-W", "ignore", "-m", "benchmarks.tune_entrant", json.dumps(course, sort_keys=True))
    return Entrant(f"{name}_{way}", command)


def outcomes(found: Race, name: str, way: str) -> dict[int, dict[str, Any]]:
    """What the runs of a set and a way said in the end, by seed."""
    return {int(done["seed"]): done for run in found.of(f"{name}_{way}") if (done := run.first("done"))}


def contest(name: str, seeds: int, kept: Kept, found: Race, *, quick: bool) -> None:
    """Have random trials set what is to be reached of a set, and then everybody reach it."""
    race(lambda seed: [entrant(name, "random", seed, 0.0, quick=quick)], seeds, kept, into=found)
    targets = {seed: float(done["best"]) for seed, done in outcomes(found, name, "random").items()}

    def rivals(seed: int) -> Sequence[Entrant]:
        if seed not in targets:
            return []
        return [entrant(name, way, seed, targets[seed], quick=quick) for way in WAYS]

    race(rivals, seeds, kept, into=found)


def cost(done: Mapping[str, Any], way: str) -> float:
    """CPU-seconds to the target: ``inf`` of ours where it was not reached, of a rival all that it took.

    >>> cost({"reached": False, "cpu_s": 4.0}, "ours"), cost({"reached": False, "cpu_s": 4.0}, "optuna")
    (inf, 4.0)
    """
    return math.inf if way == "ours" and not done["reached"] else float(done["cpu_s"])


def figures(names: Sequence[str], found: Race) -> dict[str, list[float]]:
    """CPU-seconds of everybody, and ours over those of rivals: by set and seed, and of the worst set."""
    samples: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for name in names:
        mine = outcomes(found, name, "ours")
        samples[f"tune_cpu_seconds_{name}_random"] = [
            float(done["cpu_s"]) for done in outcomes(found, name, "random").values()
        ]
        samples[f"tune_cpu_seconds_{name}_ours"] = [cost(done, "ours") for done in mine.values()]
        for way, figure in RATIOS.items():
            theirs = outcomes(found, name, way)
            samples[f"tune_cpu_seconds_{name}_{way}"] = [cost(done, way) for done in theirs.values()]
            each = [cost(mine[seed], "ours") / cost(done, way) for seed, done in theirs.items() if seed in mine]
            samples[f"{figure}_{name}"] = each
            ratios.setdefault(figure, []).extend([statistics.median(each)] if each else [])
    return samples | {figure: [max(medians)] for figure, medians in ratios.items() if medians}


def main() -> int:
    """Have everybody tune, print the figures, and write the report; returns 1 when a run failed, but for Ray's."""
    asked = asked_of(__doc__, seeds=SEEDS, parts=tuple(SUBJECTS))
    names = asked.only[:1] if asked.quick else asked.only
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    kept, found = Kept.of(f"tune{'_quick' * asked.quick}", resume=asked.resume), Race()
    for name in names:
        contest(name, asked.seeds, kept, found, quick=asked.quick)
    lines = [
        f"- {name}, seed {seed}: to reach {done['metric']} {random['best']:.4g}, the best of {random['trials']} at "
        f"random ({random['cpu_s']:.0f} s), ours tried {done['trials']} ({done['says']})."
        for name in names
        for seed, done in outcomes(found, name, "ours").items()
        if (random := outcomes(found, name, "random").get(seed))
    ]
    left_out = (
        f"\n\n`--quick`: one set, one seed, shorter trials, {QUICK_TRIALS} of them at random." if asked.quick else ""
    )
    says = f"{__doc__}{left_out}\n\n" + "\n".join(lines) + f"\n\n{notes(found)}"
    # Ray is no part of what is needed: without it its figures are left out
    optional = next((each.entrant for each in found.failed if each.entrant.endswith("_asha")), "")
    return conclude("tune", device, says, figures(names, found), found, quick=asked.quick, optional=optional)


if __name__ == "__main__":
    sys.exit(main())
