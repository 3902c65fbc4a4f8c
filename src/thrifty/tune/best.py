"""The best trial's bundle and job, kept on disk as the search goes: whenever it ends, and however, they are there."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import yaml
from torch import nn

from thrifty.data import Store
from thrifty.export.bundle import write_bundle
from thrifty.files import write_atomic, writing
from thrifty.spec import Job, Plan, Spent
from thrifty.train import evaluate_split
from thrifty.tune.record import Record
from thrifty.tune.space import with_settings
from thrifty.tune.task import Task

BUNDLE, JOB, WHICH = "bundle", "best.yaml", "best.json"


class BestBundle:
    """What the best trial left in the folder of a search; workers of one machine share it.

    Args:
        task: the search.
        store: prepared data.
    """

    def __init__(self, task: Task, store: Store) -> None:
        self._task, self._store, self._folder = task, store, task.folder

    def keep(self, model: nn.Module, plan: Plan, record: Record, goodness: float, *, spent: Spent) -> None:
        """Keep a model with its job, unless a better one of this search is kept already.

        Figures of the test split are in the bundle of a trial that came to its end; nothing goes by them.

        Args:
            model: with the trial's best weights.
            plan: of its training.
            record: of the trial, as it is now.
            goodness: how good it is, more is better.
            spent: what the search took until now.

        Raises:
            StorageError: the disk is full or the folder read-only; what was kept before is whole.
        """
        with self._alone():
            kept = self._kept()
            if kept is not None and kept >= goodness:
                return
            ended = max(record.curve) >= record.said.total
            metrics = evaluate_split(plan, model, self._store, "test").metrics if ended else {}
            tokenizer = self._store.folder / "tokenizer.json"
            write_bundle(
                self._folder / BUNDLE,
                name=self._task.job.name,
                version=1,
                task=plan.task,
                model=model,
                plan=plan.model,
                data=self._store.dataset,
                tokenizer=tokenizer if tokenizer.is_file() else None,
                metrics=metrics,
                isa=self._task.device.isa,
                bill=spent,
            )
            write_job(self._folder / JOB, with_settings(self._task.job, record.settings, self._store.dataset))
            which = {"key": self._task.key, "trial": record.number, "goodness": goodness}
            write_atomic(self._folder / WHICH, json.dumps(which), purpose="which trial is the best")

    def _kept(self) -> float | None:
        """How good what is kept is; None where it is of another search, or there is none."""
        try:
            which = json.loads((self._folder / WHICH).read_text(encoding="utf-8"))
            return float(which["goodness"]) if which["key"] == self._task.key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other worker keeps one; the lock goes with the process, however it ends."""
        with writing(self._folder, "the best bundle"):
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / ".best.lock").open("a")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def write_job(path: Path, job: Job) -> None:
    """Write a job that can be run."""
    values = job.model_dump(mode="json", exclude_defaults=True)
    write_atomic(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True), purpose="the best job")
