"""One rank of a run, started by ``torchrun``'s agent: ``python -m thrifty.train.rank TASK``."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from thrifty.data import Store
from thrifty.errors import ThriftyError
from thrifty.hardware.pages import keep_pages, keeping
from thrifty.models import build
from thrifty.models.init import initialise
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Emit, Event
from thrifty.spec.plain import Plain
from thrifty.spec.steering import Steering
from thrifty.train.line import Ended, Line, Told
from thrifty.train.loop import Trained, train
from thrifty.train.ranks import joined


class Task(Plain):
    """What every rank is to do.

    Attributes:
        plan: to follow.
        store: folder of the prepared data.
        checkpoints: folder to go on from, and to write.
        line: socket of the process that started it.
        path: where Python finds modules.
    """

    plan: Plan
    store: Path
    checkpoints: Path
    line: Path
    path: tuple[str, ...]


def main(path: Path) -> None:
    """Do a task, and say how it ended; who started it ends the others where that is needed."""
    task = Task.model_validate_json(path.read_bytes())
    sys.path += [each for each in task.path if each not in sys.path]
    rank = int(os.environ["RANK"])
    line = Line(task.line, rank)

    def tell(event: Event) -> None:
        line.say(Told(event))

    with line.listening():
        try:
            ended = Ended(_train(task, tell if rank == 0 else _silent, line))
        except ThriftyError as error:
            ended = Ended(error=error)
        except Exception:
            ended = Ended(broke=traceback.format_exc())
    line.say(ended)
    # threads of libraries may wait for ranks that are gone
    sys.stdout.flush()
    os._exit(0)


def _train(task: Task, emit: Emit, line: Line) -> Trained:
    plan = task.plan
    # weights lie in the heap, as the dry run has them
    keep_pages(keeping(plan.device, plan.checkpointing))
    with joined(plan.device) as world:
        model = build(plan.model, seed=plan.seed)
        initialise(model, plan.init, plan.seed, plan.model)

        def spent() -> Spent:
            return line.spent

        def steer() -> Steering:
            return line.steering

        return train(plan, model, Store(task.store), task.checkpoints, emit=emit, spent=spent, world=world, steer=steer)


def _silent(event: Event) -> None:
    """All ranks would say the same; the first does."""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
