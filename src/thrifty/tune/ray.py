"""Workers under Ray, on this machine or on a cluster that runs already: the same workers, and the same study."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from thrifty.errors import JobError, MissingExtraError, ThriftyError, WorkerLostError
from thrifty.tune.storage import is_shared
from thrifty.tune.task import Task
from thrifty.tune.workers import Outcome, carry


def check_ray() -> None:
    """Check that Ray is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("tuning by Ray", package="ray", extra="ray")


class RayWorkers:
    """Workers that Ray places: each on a node that has its cores free.

    Args:
        ray: the module, in a cluster.
        task: with ``workers``, how many.
    """

    def __init__(self, ray: Any, task: Task) -> None:
        self._ray = ray
        # a worker that is lost leaves its trial in the study, where the others find it
        remote = ray.remote(num_cpus=task.device.threads, max_retries=0)(_carry)
        self._refs = [remote.remote(task.model_dump_json()) for _ in range(task.workers)]

    def poll(self) -> bool:
        """Whether any still works."""
        waiting: Sequence[Any] = self._ray.wait(self._refs, num_returns=len(self._refs), timeout=0)[1]
        return bool(waiting)

    def stop(self, number: signal.Signals) -> None:
        """Ask all to end; SIGKILL ends them at once."""
        for each in self._refs:
            self._ray.cancel(each, force=number == signal.SIGKILL)

    def finish(self) -> Sequence[Outcome]:
        """What each ended with."""
        return [self._outcome(each) for each in self._refs]

    def _outcome(self, ref: Any) -> Outcome:
        try:
            reason, error = self._ray.get(ref)
        except self._ray.exceptions.RayError as lost:
            said = " ".join(str(lost).split())[:300]
            return Outcome(error=WorkerLostError(f"a worker under Ray is gone: {said}", mend="Try again."))
        return Outcome(reason, error)


@contextmanager
def ray_workers(task: Task, address: str | None) -> Iterator[RayWorkers]:
    """Begin workers under Ray; none outlives the block.

    Args:
        task: with ``workers``, how many.
        address: of a cluster, as ``ray.init`` takes it; None begins one on this machine.

    Raises:
        MissingExtraError: Ray is not installed.
        JobError: the cluster cannot be had, has not the cores, or its nodes cannot share a study in a file.
    """
    from thrifty.serve.ray.cluster import joined, prepare

    check_ray()
    prepare(address)
    import ray

    with joined(ray, address):
        nodes = [each for each in ray.nodes() if each["Alive"]]
        if len(nodes) > 1 and not is_shared(task.url):
            raise JobError(
                f"the cluster has {len(nodes)} nodes, and the study lies in a file of this one",
                mend="Keep it where all reach it: --storage postgresql://user@host/name.",
            )
        cores, needed = sum(int(each["Resources"].get("CPU", 0)) for each in nodes), task.device.threads * task.workers
        if cores < needed:
            raise JobError(
                f"{task.workers} workers of {task.device.threads} cores need {needed}, and the cluster has {cores}",
                mend="Ask for fewer workers.",
            )
        crew = RayWorkers(ray, task)
        try:
            yield crew
        finally:
            crew.stop(signal.SIGKILL)


def _carry(text: str) -> tuple[str, ThriftyError | None]:
    """Be a worker, in a process of Ray's; an error that a user can mend is returned, for Ray would wrap it."""
    import sys

    task = Task.model_validate_json(text)
    sys.path[:0] = [each for each in task.path if each not in sys.path]
    try:
        return carry(task, lambda event: None), None
    except ThriftyError as error:
        return "", error
