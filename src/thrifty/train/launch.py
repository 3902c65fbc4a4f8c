"""Train on several devices: ``torchrun``'s agent starts a rank for each, on this machine; they end all together.

The agent runs in a thread of this process, and what it watches are ranks with a line to here: a rank that dies is known
at once, and the others are ended; where this process dies, they end themselves.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from torch import nn
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from thrifty.data import Store
from thrifty.errors import RankLostError, SignalledError, ThriftyError
from thrifty.spec import Plan, Spent
from thrifty.spec.events import Checkpointed, Emit, Event, StepDone
from thrifty.spec.steering import Steering
from thrifty.train.checkpoint import Checkpoints, State, learning_key
from thrifty.train.line import Ended, Hello, Message, Told, Use
from thrifty.train.loop import Trained
from thrifty.train.rank import Task
from thrifty.train.savings import with_savings, without_savings
from thrifty.train.signals import Asked, asked_to_end
from thrifty.train.steering import Steer, undisturbed

# how often a budget is looked at, and the ranks' agent
LOOK_SECONDS = 0.2
# in which ranks may say why they end, once one of them did or is gone; then they are killed
GRACE_SECONDS = 3.0

Used = Callable[[Sequence[Use]], None]


def train_on_ranks(
    plan: Plan,
    model: nn.Module,
    store: Store,
    folder: Path,
    *,
    emit: Emit,
    spent: Callable[[], Spent],
    used: Used = lambda uses: None,
    steer: Steer = undisturbed,
) -> Trained:
    """Train as `thrifty.train.loop.train` does, on ``plan.devices`` ranks of this machine.

    Args:
        plan: every decision taken; every rank follows it.
        model: as it was built; the best weights are put into it.
        store, folder: as for the loop.
        emit: is told what the first rank's loop says.
        spent: what the run has spent so far, that of the ranks included.
        used: is told now and then what each rank used until now.
        steer: says now and then what is asked for, which the first rank is told.

    Raises:
        RankLostError: a rank ended without a word; what was saved is whole.
        ThriftyError: as the loop does.
    """
    with asked_to_end() as asked, tempfile.TemporaryDirectory(prefix="thrifty-ranks-") as scratch:
        address = Path(scratch) / "line"
        task = Task(plan=plan, store=store.folder, checkpoints=folder, line=address, path=tuple(sys.path))
        path = Path(scratch) / "task.json"
        path.write_text(task.model_dump_json())
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(address))
            server.listen(plan.devices)
            ranks = _Ranks(plan, server, asked, emit, spent, used, steer)
            trained = ranks.follow(_Agent(plan.devices, path))
    _put_best(plan, model, store, folder, trained)
    if asked.signal is not None:
        raise asked.error(f"training is done and saved in '{folder}': {trained.reason}")
    return trained


def _put_best(plan: Plan, model: nn.Module, store: Store, folder: Path, trained: Trained) -> None:
    with_savings(model, plan)
    with Checkpoints(folder, key=learning_key(plan, store.dataset.key)) as checkpoints:
        checkpoints.load_best(State(best_step=trained.best_step), model)
    without_savings(model)


class _Agent:
    """``torchrun``'s agent in a thread; it says nothing itself.

    Args:
        count: ranks.
        task: the file that tells them what to do.
    """

    def __init__(self, count: int, task: Path) -> None:
        self.failures: dict[int, ProcessFailure] = {}
        self.error: BaseException | None = None
        self._config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        )
        self._command = (sys.executable, "-m", "thrifty.train.rank", str(task))
        self._thread = threading.Thread(target=self._run, name="torchrun", daemon=True)
        _quiet()
        self._thread.start()

    @property
    def runs(self) -> bool:
        """Whether ranks may still be there."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the ranks to be gone."""
        self._thread.join()

    def _run(self) -> None:
        try:
            elastic_launch(self._config, self._command[0])(*self._command[1:])
        except ChildFailedError as error:
            self.failures = dict(error.failures)
        except BaseException as error:
            self.error = error


class _Rank:
    """What is known of a rank."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.number, self.pid = -1, 0
        self.use = Use()
        self.ended: Ended | None = None
        self.gone = False
        self.killed = False


class _Ranks:
    """All ranks of a run, as seen from the process that started them."""

    def __init__(
        self,
        plan: Plan,
        server: socket.socket,
        asked: Asked,
        emit: Emit,
        spent: Callable[[], Spent],
        used: Used,
        steer: Steer,
    ) -> None:
        self.plan, self.server, self.asked = plan, server, asked
        self.emit, self.spent, self.used, self.steer = emit, spent, used, steer
        self.steering, self.steered_at = Steering(), -math.inf
        self.ranks: list[_Rank] = []
        self.step, self.saved = 0, 0
        self.begun = self.passed_on = False
        self.trouble_at: float | None = None

    def follow(self, agent: _Agent) -> Trained:
        """Pass on what is said until all have ended; return what the first rank returned."""
        try:
            while agent.runs or self._open():
                self._look()
                if self._overdue():
                    self._kill()
        finally:
            # also where Ctrl-C came twice: no rank outlives its launcher
            self._kill()
            agent.join()
            for each in self.ranks:
                each.connection.close()
            # processor seconds of children that have ended are counted as this process's own
            self.used([replace(each.use, cpu_s=0.0) for each in self.ranks])
        return self._result(agent)

    def _open(self) -> list[_Rank]:
        return [each for each in self.ranks if not each.gone]

    def _look(self) -> None:
        lines: dict[Any, _Rank] = {each.connection: each for each in self._open()}
        for ready in wait([self.server, *lines], timeout=LOOK_SECONDS):
            if ready is self.server:
                self.ranks.append(_Rank(Connection(self.server.accept()[0].detach())))
            else:
                self._hear(lines[ready])
        first = self._first()
        if first is not None and not first.gone and first.ended is None:
            self._pass_on(first)

    def _hear(self, rank: _Rank) -> None:
        try:
            message: Message = rank.connection.recv()
        except (EOFError, OSError):
            rank.gone = True
            if rank.ended is None:
                self._trouble()
            return
        match message:
            case Hello(number, pid):
                rank.number, rank.pid = number, pid
            case Told(event):
                self._tell(event)
            case Use():
                rank.use = message
                self.used([each.use for each in self.ranks])
            case Ended(_, error, broke):
                rank.ended = message
                if broke or (error is not None and not isinstance(error, SignalledError)):
                    self._trouble()

    def _tell(self, event: Event) -> None:
        self.begun = True
        if isinstance(event, StepDone):
            self.step = event.step
        if isinstance(event, Checkpointed):
            self.saved = event.step
        self.emit(event)

    def _pass_on(self, first: _Rank) -> None:
        """Let the first rank know what was spent, what is asked for, and which signal asked for the end."""
        try:
            self._pass_on_steering(first)
            stop = self.plan.stop
            if self.steering.limits or min(stop.seconds, stop.joules, stop.usd) < float("inf"):
                first.connection.send(self.spent())
        except OSError:
            return  # it is gone, which is noticed elsewhere
        if self.asked.signal is None or self.passed_on:
            return
        self.passed_on = True
        if self.begun:
            os.kill(first.pid, self.asked.signal)
        else:
            self._kill()

    def _pass_on_steering(self, first: _Rank) -> None:
        if time.monotonic() - self.steered_at < LOOK_SECONDS:
            return
        asked, self.steered_at = self.steer(), time.monotonic()
        if asked != self.steering:
            first.connection.send(asked)
            self.steering = asked

    def _first(self) -> _Rank | None:
        return next((each for each in self.ranks if each.number == 0), None)

    def _trouble(self) -> None:
        self.trouble_at = self.trouble_at or time.monotonic()

    def _overdue(self) -> bool:
        return self.trouble_at is not None and time.monotonic() - self.trouble_at > GRACE_SECONDS

    def _kill(self) -> None:
        for each in self._open():
            if not each.killed and each.pid and each.ended is None:
                each.killed = True
                try:
                    os.kill(each.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def _result(self, agent: _Agent) -> Trained:
        ranks = sorted(self.ranks, key=lambda each: each.number)
        ended = [each.ended for each in ranks if each.ended is not None]
        if ended and isinstance(ended[0].result, Trained) and ranks[0].number == 0:
            return ended[0].result
        lost = [each for each in ranks if each.ended is None and not each.killed]
        if self.asked.signal is not None and not self.begun:
            raise self.asked.error("training had not begun; what was saved before is whole")
        if lost:
            # whom the agent ended because another had died, it ended by SIGTERM
            raise self._lost(min(lost, key=lambda each: _exit_code(each, agent) == -signal.SIGTERM), agent)
        for error in (each.error for each in ended if each.error is not None):
            raise error
        for each in ranks:
            if each.ended is not None and each.ended.broke:
                raise RuntimeError(f"rank {each.number} of {self.plan.devices} failed:\n{each.ended.broke}")
        if agent.error is not None:
            raise agent.error
        raise RankLostError(
            f"no rank of {self.plan.devices} came to its first step",
            mend="What they wrote to stderr may tell why; on one device: leave out --devices.",
        )

    def _lost(self, rank: _Rank, agent: _Agent) -> ThriftyError:
        code = _exit_code(rank, agent)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "ended without a word"
        saved = f"step {self.saved:,} is saved" if self.saved else "what was saved before is whole"
        memory = " If memory ran out, pin a smaller plan.micro_batch." if code == -signal.SIGKILL else ""
        return RankLostError(
            f"rank {rank.number} of {self.plan.devices} (process {rank.pid}) {how} after step {self.step:,} of "
            f"{self.plan.stop.steps:,}; the others were ended, and {saved}",
            mend=f"Go on: give the same command again, with as many devices or another number.{memory}",
        )


def _exit_code(rank: _Rank, agent: _Agent) -> int:
    """What a rank ended with, negative of a signal; 0 where the agent does not know."""
    failure = agent.failures.get(rank.number)
    return failure.exitcode if failure is not None else 0


def _quiet() -> None:
    """Keep the agent's log to itself: what becomes of ranks is said in one line here."""
    log = logging.getLogger("torch.distributed.elastic")
    log.addHandler(logging.NullHandler())
    log.propagate = False
