"""A job run by ``thrifty.api.run`` in a process of its own, telling what happens as the peers do.

``python -m benchmarks.ours COURSE``: a job as JSON, and the steps after which to end. A run that is ended early has
planned for its whole length.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.peers.talk import Talk, peak_bytes
from thrifty import api
from thrifty.planner import planner
from thrifty.spec import Plan
from thrifty.spec.events import Checkpointed, Evaluated, Event, Narrowed, Planned, StageDone, StageStarted, StepDone

NATS_PER_BIT = 0.6931471805599453


class EnoughError(Exception):
    """As many steps as wanted were taken."""


class Teller:
    """An ``emit`` that says what happens, and ends the run after so many steps of one attempt; 0 for none."""

    def __init__(self, talk: Talk, stop_after: int) -> None:
        self.talk, self.stop_after = talk, stop_after
        self.length, self.taken, self.checkpoints = 0, 0, 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            samples = round(event.samples_per_second * event.seconds)
            self.talk.step(samples, samples * self.length)
            self.taken += 1
            if self.taken == self.stop_after:
                raise EnoughError
            return
        # a stage that begins lowers the mark of the peak memory
        self.talk.look()
        if isinstance(event, StageStarted) and event.stage == "train":
            self.talk.say("ready")
        elif isinstance(event, Planned):
            self.talk.say("planned", **told(event.plan))
            self.length = event.plan.model.arguments.get("length", 0) if event.plan.task == "language" else 0
        elif isinstance(event, Evaluated):
            figures = dict(event.metrics)
            if "bits_per_byte" in figures:
                figures["nats_per_byte"] = figures["bits_per_byte"] * NATS_PER_BIT
            self.talk.say("evaluated", step=event.step, **figures)
        elif isinstance(event, Narrowed):
            self.talk.say("narrowed", step=event.step, stage=event.stage, before=event.before, to=event.to)
        elif isinstance(event, Checkpointed):
            self.checkpoints += 1
        elif isinstance(event, StageDone):
            # the mark was lowered when the stage began
            peak = {"peak_bytes": peak_bytes()}
            self.talk.say("stage", stage=event.stage, says=event.says, wall_s=event.spent.wall_s, **peak)


def told(plan: Plan) -> dict[str, Any]:
    """What a plan decided that bears on speed and memory, in words."""
    batch = plan.batch
    facts: dict[str, Any] = {
        "model": plan.model.name,
        "precision": plan.precision,
        "batch": f"{batch.size} = {batch.accumulation} x {batch.micro}",
        "optimizer": plan.optim.optimizer,
        "rate": plan.optim.learning_rate,
        "checkpointing": plan.checkpointing,
        "memory_format": plan.memory_format,
        "steps": plan.stop.steps,
        "evaluate_every": plan.evaluate_every,
    }
    # what later plans decide beside these
    for source, names in ((batch, ("batching",)), (plan, ("compile", "kernels", "weights", "state"))):
        facts |= {name: str(getattr(source, name)) for name in names if hasattr(source, name)}
    return facts


def main(text: str) -> None:
    """Run, and say how it goes."""
    course = json.loads(text)
    talk = Talk()
    if "checkpoint_seconds" in course:
        # a job has no word for it
        planner.CHECKPOINT_SECONDS = course["checkpoint_seconds"]
    with tempfile.TemporaryDirectory(prefix="thrifty-bench-") as scratch:
        job = Path(scratch) / "job.yaml"
        job.write_text(yaml.safe_dump(course["job"]), encoding="utf-8")
        facts: dict[str, Any] = {}
        teller = Teller(talk, course["stop_after"])
        try:
            outcome = api.run(job, runs=Path(scratch) / "runs", emit=teller)
            facts = {
                "validation": outcome.result.validation,
                "test": outcome.result.test,
                "reason": outcome.result.reason,
                "loading_share": outcome.result.loading_share,
                "joules": outcome.entry.total.joules,
                "joules_method": outcome.entry.total.joules_method,
                "usd": outcome.entry.total.usd,
                "usd_method": outcome.entry.total.usd_method,
            }
        except EnoughError:
            pass
    talk.done(checkpoints=teller.checkpoints, **facts)


if __name__ == "__main__":
    main(sys.argv[1])
