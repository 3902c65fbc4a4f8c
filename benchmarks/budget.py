"""Peak memory under a budget of half of what a plain loop needs, of four models; and what keeping it costs.

    python -m benchmarks.budget [--quick] [--rounds N] [--resume]

A plain PyTorch loop in fp32 shows what a model needs for a batch: the most memory that its process had resident. The
same batch is then a job with ``budget: {memory: half of that}``, which is for the whole process, imports and planning
in it, run whole: planned, trained, validated, bundled. What the run itself found too much, and narrowed, is told.
Beside it runs the same job without a budget, so that the slowdown is of the budget alone.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import bert_step, cifar, gpt2, real_data, shakespeare
from benchmarks.figures import WARM_UP, conclude, medians_s, notes, ratios, spread
from benchmarks.kept import Kept
from benchmarks.peers.task import Task
from benchmarks.race import Entrant, Race, asked_of, need_peers, ours, peer, race
from thrifty import hardware
from thrifty.api import silent
from thrifty.data import prepare
from thrifty.spec import parse_job, raw_data
from thrifty.spec.folders import cache_folder

STEPS, PLAIN_STEPS = 10, 3
SHARE = 0.5


@dataclass(frozen=True)
class Subject:
    """A model with its batch: as a job, and as the task of the plain loop."""

    job: Mapping[str, Any]
    plain: Task

    def within(self, limit_bytes: float | None) -> dict[str, Any]:
        """The job with so much memory, of a few steps and one validation."""
        train = {key: value for key, value in self.job["train"].items() if key not in {"epochs", "evaluations"}}
        budget = {"budget": {"memory": f"{limit_bytes / 2**20:.0f}MiB"}} if limit_bytes else {}
        return {**self.job, "train": {**train, "steps": STEPS, "evaluations": 1, "batch": self.plain.batch}, **budget}


def _bert() -> Subject:
    batch = 64
    task = Task(
        "text",
        str(real_data.sentences(bert_step.SENTENCES, bert_step.LENGTH)),
        batch,
        steps=PLAIN_STEPS,
        rate=1e-4,
        model=bert_step.MODEL,
        length=bert_step.LENGTH,
        vocabulary=str(real_data.shared("tokenizers/bert-base-uncased-vocab.txt")),
    )
    return Subject(bert_step.job(), task)


def _gpt_mini() -> Subject:
    batch = 32
    job = shakespeare.job(0, large=True)
    job["data"]["vocabulary"] = 4096
    wanted = parse_job(job)
    store = prepare(raw_data(wanted), seed=wanted.train.seed, cache=cache_folder(), emit=silent)
    task = Task(
        "language",
        str(store.folder),
        batch,
        steps=PLAIN_STEPS,
        rate=1e-4,
        model=shakespeare.LARGE,
        length=shakespeare.LARGE_LENGTH,
    )
    return Subject(job, task)


def _resnet18() -> Subject:
    task = replace(cifar.task(cifar.laid_out(0), 0), batch=256, steps=PLAIN_STEPS, warmup=0, flags=("few",))
    return Subject(cifar.job(0), task)


def _gpt2() -> Subject:
    task = Task(
        "language",
        str(gpt2.prepared().folder),
        gpt2.BATCH,
        steps=PLAIN_STEPS,
        rate=1e-4,
        model=gpt2.MODEL,
        length=gpt2.LENGTH,
    )
    return Subject(gpt2.job(), task)


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "bert_small": _bert,
    "gpt_mini": _gpt_mini,
    "resnet18": _resnet18,
    "gpt2": _gpt2,
}
QUICK = ("bert_small", "gpt_mini")


def plain(subjects: Mapping[str, Subject]) -> Callable[[int], Sequence[Entrant]]:
    """Who shows what a model needs."""
    return lambda _: [peer(f"{name}_plain", "plain_torch", subject.plain) for name, subject in subjects.items()]


def within(subjects: Mapping[str, Subject], limits: Mapping[str, float]) -> Callable[[int], Sequence[Entrant]]:
    """Who runs with the budget, and without."""

    def entrants(_: int) -> list[Entrant]:
        found = []
        for name, limit in limits.items():
            found.append(ours(f"{name}_free", subjects[name].within(None)))
            found.append(ours(f"{name}_budget", subjects[name].within(limit)))
        return found

    return entrants


def step_s(found: Race, name: str) -> list[float]:
    """Median seconds of a step, run by run."""
    return medians_s(found.of(name))


def figures(found: Race, limits: Mapping[str, float]) -> dict[str, list[float]]:
    """The figures of the issue: the worst model of each."""
    samples: dict[str, list[float]] = {}
    for name, limit in limits.items():
        held = [run.peak_bytes / limit for run in found.of(f"{name}_budget")]
        if held:
            samples[f"budget_ratio_{name}"] = held
            slower = ratios(step_s(found, f"{name}_budget"), step_s(found, f"{name}_free"))
            samples[f"budget_slowdown_{name}"] = [each - 1 for each in slower]
    worst = [max(values) for figure, values in samples.items() if figure.startswith("budget_ratio_")]
    slowest = [statistics.median(values) for figure, values in samples.items() if "slowdown" in figure and values]
    if worst:
        samples["budget_worst_ratio"] = [max(worst)]
    if slowest:
        samples["budget_slowdown"] = [max(slowest)]
    samples["budget_models"] = [float(len(worst))]
    return samples


def highest(found: Race, name: str) -> str:
    """The stage of an entrant's last run in which most memory was resident; empty where none is known."""
    stages = [event for run in found.of(name)[-1:] for event in run.said if event["event"] == "stage"]
    return str(max(stages, key=lambda event: event["peak_bytes"])["stage"]) if stages else ""


def narrowings(found: Race, name: str) -> str:
    """What runs computed fewer samples at once than planned, as they went: of training and validation."""
    said = [event for run in found.of(name) for event in run.said if event["event"] == "narrowed"]
    return ", ".join(f"{event['stage']} {event['before']} to {event['to']}" for event in said) or "nothing"


def table(found: Race, limits: Mapping[str, float]) -> str:
    """Write what each model took: plain, free and within its budget."""
    rows = [
        "| model | plain loop, MiB | budget | within it | its highest stage | without | ms a step, plain "
        "| within | without | narrowed as it ran |"
    ]
    rows += ["|---|---:|---:|---:|---|---:|---:|---:|---:|---|"]
    for name, limit in limits.items():
        cells = [f"{found.of(f'{name}_plain')[-1].peak_bytes / 2**20:.0f}", f"{limit / 2**20:.0f}"]
        cells += [
            spread(run.peak_bytes / 2**20 for run in found.of(f"{name}_budget")),
            highest(found, f"{name}_budget"),
        ]
        cells += [spread(run.peak_bytes / 2**20 for run in found.of(f"{name}_free"))]
        cells += [spread(1e3 * each for each in step_s(found, f"{name}_{way}")) for way in ("plain", "budget", "free")]
        cells += [narrowings(found, f"{name}_budget")]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> int:
    """Race, print the figures, and write the report; returns 1 when a run failed."""
    asked = asked_of(__doc__, rounds=2)
    need_peers()
    device = hardware.here(kind="cpu")  # measured alone, before it is asked for
    kept = Kept.of(f"budget{'_quick' * asked.quick}", resume=asked.resume)
    subjects = {name: make() for name, make in SUBJECTS.items() if not asked.quick or name in QUICK}
    found = race(plain(subjects), 1, kept)
    limits = {name: SHARE * found.of(f"{name}_plain")[0].peak_bytes for name in subjects if found.of(f"{name}_plain")}
    race(within(subjects, limits), asked.rounds, kept, into=found)
    left_out = f"\n\n`--quick`: {' and '.join(QUICK)} alone." if asked.quick else ""
    says = (
        f"{__doc__}\nMemory is VmHWM of the process, what it imported in it. Steps are medians of {STEPS - WARM_UP} "
        f"after {WARM_UP} (plain: of one). The worst ratio is of any run; the slowdown of the slowest model, against "
        f"the same job without a budget.{left_out}\n\n{table(found, limits)}\n\n{notes(found)}"
    )
    return conclude("budget", device, says, figures(found, limits), found, quick=asked.quick)


if __name__ == "__main__":
    sys.exit(main())
