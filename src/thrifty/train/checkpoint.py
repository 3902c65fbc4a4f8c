"""Checkpoints: the whole state of training, written while it goes on; a kill at any instant leaves the last one whole.

    step-<n>.pt              weights, optimizer, random generators, where training stands
    best-<n>.safetensors     the weights that did best until then
    step-<n>.sha256          the sums of both, as ``sha256sum --check`` reads them; written last, makes the checkpoint
    damaged-...              what could not be read back, put aside for whoever wants to look

The step in the name of the best weights is what makes a resume exact: a checkpoint names the best file that was best
when it was taken, and that file is kept as long as a checkpoint that names it. Best weights wait in memory for the next
checkpoint: without one that names them nobody would look for them.

The state is copied, and a thread writes the copy with little claim on the processor; where there is no memory for a
copy, training waits for the writing. States are ``torch.save``'s, for optimizers nest them and some hold tensors of
kinds of their own; they are read back with ``weights_only``, which runs no code of a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from thrifty.errors import BundleError, DiskFullError
from thrifty.files import write_atomic, write_hashed, writing
from thrifty.models.adapters import changing, restore
from thrifty.spec import Plan
from thrifty.spec.events import CheckpointDamaged, Checkpointed, CheckpointFailed, CheckpointsRemoved, Event
from thrifty.train.generators import generators_state, load_generators
from thrifty.train.spread import ONE_DEVICE, Spread
from thrifty.train.tensors import Copies, bytes_of, own_weights, write_safetensors

_SUMS = re.compile(r"step-(\d+)(?:-(\d+))?\.sha256")
# niceness of the writing thread: it takes a tenth of what one that computes takes, so that it ends in any case
_NICENESS = 10
# what tells an optimizer's kernel among the settings of a group
_KERNELS = ("fused", "foreach")


@dataclass
class State:
    """Where training stands, apart from weights and optimizer.

    Attributes:
        step: optimizer steps taken; skipped ones count.
        evaluated_step: step of the last validation.
        best_step: step of the best validation; 0 before the first.
        best: its metrics.
        since_best: validations since then without improvement.
        micro: samples computed at once; as planned, or fewer where memory was short.
        planned: what the plan had in its place.
        devices: ranks that computed so many each.
        evaluation: samples validated at once.
        schedule: state of the schedule.
        guard: state of the guard.
        scale: state of the scale of the loss; empty where it is not scaled.
    """

    step: int = 0
    evaluated_step: int = -1
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    since_best: int = 0
    micro: int = 0
    planned: int = 0
    devices: int = 1
    evaluation: int = 0
    schedule: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)
    scale: dict[str, Any] = field(default_factory=dict)


def learning_key(plan: Plan, data: str) -> str:
    """Content key of what decides what is learned: a checkpoint goes on under any plan of the same key.

    How it is computed is left out where it only changes the order in which sums are rounded: micro-batch, threads,
    device, memory format, kernels, what is computed again.

    Args:
        plan: of the run.
        data: content key of the prepared data.
    """
    learned = plan.model_dump_json(
        include={
            "task": True, "model": {"name", "family", "arguments"}, "init": True, "optim": True, "precision": True,
            "seed": True, "guard": True, "evaluate_every": True, "batch": {"size"}, "augment": True,
            "progressive": True, "label_smoothing": True, "stop": {"metric", "higher_is_better"},
        }
    )  # fmt: skip
    return hashlib.sha256(f"{learned}\n{data}".encode()).hexdigest()[:20]


class _Damaged(Exception):  # noqa: N818 - says so of a file
    """A file is not what was written."""


class _Abandoned(Exception):  # noqa: N818 - a signal, not an error
    """Nobody waits for this checkpoint any more."""


@dataclass(frozen=True)
class _Best:
    """Best weights that are not on disk yet, and the copies they came from."""

    step: int
    weights: dict[str, Tensor]
    copies: Copies


@dataclass(frozen=True, order=True)
class _Kept:
    """A checkpoint on disk: its step, its number among those of the step, the sums of its files by their names."""

    step: int
    number: int
    sums: dict[str, str] = field(compare=False)

    @property
    def name(self) -> str:
        return f"step-{self.step}" + (f"-{self.number}" if self.number > 1 else "")


class Checkpoints:
    """The checkpoint folder of one run; a context that ends when nothing is being written any more.

    At most one checkpoint is being written. What became of it is told by `news`.

    Args:
        folder: held by this process alone.
        key: of what is learned; a checkpoint of another key is refused.
        keep: how many of the last are kept.
        beside: copy the state and write while training goes on; else training waits, and nothing is copied.
        holds: whether there is memory for a copy of so many bytes now; where there is none, training waits.
        spread: how the model lies on the ranks, all of which ask for the same at the same time; the first writes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: str,
        keep: int = 2,
        beside: bool = True,
        holds: Callable[[int], bool] = lambda size: True,
        spread: Spread = ONE_DEVICE,
    ) -> None:
        assert keep >= 1
        self.folder, self.key, self.keep, self.beside, self._holds = folder, key, keep, beside, holds
        self.spread, self._writes = spread, spread.world.first
        self.writer_cpu_seconds = 0.0
        self._source: _Kept | None = None
        # the rank that writes may remove files while others begin
        self._kept: list[_Kept] = sorted(_found(folder)) if self._writes else []
        self._sums = {name: sha256 for kept in self._kept for name, sha256 in kept.sums.items()}
        self._best: _Best | None = None
        self._best_step = 0
        self._news: deque[Event] = deque()
        self._full: DiskFullError | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._abandoned = threading.Event()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._abandoned.set()
        self.wait()

    @property
    def last_step(self) -> int | None:
        """Step of the newest checkpoint that is safely on disk; None before there is one."""
        return self._kept[-1].step if self._kept else None

    def news(self) -> Iterator[Event]:
        """Tell what became of checkpoints since last asked.

        Raises:
            StorageError: one could not be written, for another reason than a full disk; those before it are whole.
        """
        while self._news:
            yield self._news.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def save(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Begin to write a checkpoint, once the one before it is written; the state may change on return."""
        held = bytes_of([changing(model), optimizer.state_dict()]) if self.beside else 0
        self._save(state, model, optimizer, beside=self.beside and self._holds(held))

    def _save(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer, *, beside: bool) -> None:
        began = time.perf_counter()
        self.wait()
        content = {
            "key": self.key,
            "state": asdict(state),
            "model": self.spread.whole(changing(model)),
            "optimizer": self.spread.whole(optimizer.state_dict()),
            "generators": generators_state(),
        }
        if not self._writes:
            return
        best, ready = self._best, _at_once
        step, best_step = state.step, state.best_step
        if beside and not self.spread.copies:
            # weights that are best since this very step were copied then
            copies = Copies(best.copies if best is not None and best.step == state.step else None)
            content, ready = copies.of(content), copies.wait
        held_s = time.perf_counter() - began if beside else math.inf

        def write() -> None:
            ready()
            self._write(step, best_step, content, best, began, held_s)

        if not beside:
            self._attempt(step, write)
            return
        self._thread = threading.Thread(target=self._aside, args=(step, write), name="checkpoint")
        self._thread.start()

    def finish(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Event]:
        """Write the last checkpoint of an attempt and tell what was written; a full disk is first freed of older ones.

        Raises:
            StorageError: it cannot be written.
        """
        yield from self.saved(state, model, optimizer)
        removed = self._remove_older() if self._full is not None else []
        if self.spread.world.of_first(len(removed)):
            yield CheckpointsRemoved(state.step, ", ".join(removed))
            yield from self.saved(state, model, optimizer)
        if self._full is not None:
            raise self._full

    def wait(self) -> None:
        """Wait until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> State | None:
        """Put the newest whole checkpoint into model, optimizer and random generators; None when there is none.

        Checkpoints that are not what was written are put aside, which `news` tells.

        Raises:
            BundleError: none of those that are there is whole, or it is of something else than this plan learns.
        """
        if self._writes:
            self._sweep()
        content = self._everyones(self._newest_whole)
        if content is None:
            return None
        if content["key"] != self.key:
            raise BundleError(
                f"the checkpoint of step {content['state']['step']:,} in '{self.folder}' was made by another plan",
                mend=f"Remove '{self.folder}' to train from the start.",
            )
        self._put_back(content, model, optimizer)
        load_generators(content["generators"])
        state = State(**content["state"])
        self._best_step = state.best_step
        return state

    def roll_back(self, before: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> State | None:
        """Put weights and optimizer of the newest whole checkpoint of fewer than ``before`` steps back.

        Later checkpoints are removed: who goes on from it comes by what went wrong again.

        Returns:
            Where training stood then; None when there is no such checkpoint, and nothing is changed.
        """
        self.wait()
        content = self._everyones(lambda: self._newest_whole(before))
        if content is None:
            return None
        self._put_back(content, model, optimizer)
        if self._writes:
            self._remove([each for each in self._kept if each.step > content["state"]["step"]])
        return State(**content["state"])

    def _put_back(self, content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        restore(model, self.spread.parts(content["model"]))
        state = self.spread.optimizer_parts(optimizer, content["optimizer"])
        if "param_groups" in state:
            # by which kernel it steps is this machine's to say, not that of whoever wrote the checkpoint
            kernels = [{name: group[name] for name in _KERNELS if name in group} for group in optimizer.param_groups]
            groups = [{**group, **own} for group, own in zip(state["param_groups"], kernels, strict=True)]
            state = {**state, "param_groups": groups}
        optimizer.load_state_dict(state)

    def _everyones(self, find: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
        """What the rank that writes finds; the others read the same file, which it has seen to be whole."""
        if self.spread.world.size == 1:
            return find()
        content = find() if self._writes else None
        found = "" if content is None or self._source is None else self._source.name
        name = self.spread.world.everyones(found)[0]
        if not name or self._writes:
            return content
        return _load(self.folder / f"{name}.pt")

    def save_best(self, state: State, model: nn.Module) -> None:
        """Keep the weights that did best: on disk with the next checkpoint, or at once where there is no copy."""
        self.wait()
        self._best_step = state.best_step
        copies = Copies()
        weights = self.spread.whole(own_weights(model))
        if not self._writes:
            return
        if not (self.beside and self._holds(bytes_of(changing(model)))):
            live = _Best(state.best_step, weights, copies)
            self._attempt(state.step, lambda: self._write_best(live))
            if _best_name(state.best_step) in self._sums:
                return
        kept = weights if self.spread.copies else copies.of(weights)
        self._best = _Best(state.best_step, kept, copies)

    def load_best(self, state: State, model: nn.Module) -> None:
        """Put the best weights into the model."""
        self.wait()
        self.spread.world.total(0)  # what the first rank has just written is there
        if self._best is not None and self._best.step == state.best_step:
            self._best.copies.wait()
            weights = self._best.weights
        else:
            weights = load_file(self.folder / _best_name(state.best_step))
        restore(model, self.spread.parts(weights))

    def saved(self, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Event]:
        """Write a checkpoint while nothing is computed, which takes no copy, and tell what became of it.

        Raises:
            StorageError: it cannot be written, for another reason than a full disk.
        """
        self._save(state, model, optimizer, beside=False)
        yield from self.news()

    def _aside(self, step: int, write: Callable[[], None]) -> None:
        _yield_processor()
        self._attempt(step, write)

    def _attempt(self, step: int, write: Callable[[], None]) -> None:
        """Write, and remember what became of it for whoever asks."""
        try:
            began = time.thread_time()
            try:
                write()
            finally:
                self.writer_cpu_seconds = time.thread_time() - began
            self._full = None
        except DiskFullError as error:
            self._full = error
            self._news.append(CheckpointFailed(step, error.what))
        except BaseException as error:
            if not self._abandoned.is_set():
                # the first is told, whoever asks late
                self._error = self._error or error

    def _write(
        self, step: int, best_step: int, content: dict[str, Any], best: _Best | None, began: float, held_s: float
    ) -> None:
        if best is not None:
            self._write_best(best)
        number = 1 + max((kept.number for kept in self._kept if kept.step == step), default=0)
        made = _Kept(step, number, {})
        sha256, size = write_hashed(
            self.folder / f"{made.name}.pt",
            lambda file: _save_bare(content, self._watched(file)),
            purpose="a checkpoint",
            more_follow=True,
        )
        made.sums[f"{made.name}.pt"] = sha256
        if best_step:
            made.sums[_best_name(best_step)] = self._sums[_best_name(best_step)]
        lines = "".join(f"{sha256}  {name}\n" for name, sha256 in made.sums.items())
        write_atomic(self.folder / f"{made.name}.sha256", lines, purpose="the sums of a checkpoint")
        self._kept.append(made)
        self._remove(self._kept[: -self.keep])
        seconds = time.perf_counter() - began
        self._news.append(Checkpointed(step, size, seconds, min(held_s, seconds)))

    def _write_best(self, best: _Best) -> None:
        best.copies.wait()
        name = _best_name(best.step)
        sha256, _ = write_hashed(
            self.folder / name,
            lambda file: write_safetensors(self._watched(file), best.weights),
            purpose="the best weights",
            more_follow=True,
        )
        self._sums[name] = sha256
        # better ones may have come since
        if self._best is best:
            self._best = None

    def _watched(self, file: BinaryIO) -> BinaryIO:
        return cast(BinaryIO, _Watched(file, self._abandoned))

    def _remove_older(self) -> list[str]:
        """Remove all but the newest checkpoint, and what was put aside; returns the names of the files."""
        self.wait()
        aside = sorted(path.name for path in self.folder.glob("damaged-*"))
        for name in aside:
            (self.folder / name).unlink(missing_ok=True)
        return aside + self._remove(self._kept[:-1])

    def _remove(self, old: list[_Kept]) -> list[str]:
        """Remove checkpoints, and weights that were best and that none of the rest names; returns names of files."""
        names = []
        for kept in old:
            self._kept.remove(kept)
            # the sums first: without them there is no checkpoint, so half of one is never taken for damaged
            names += [f"{kept.name}.sha256", f"{kept.name}.pt"]
        named = {name for kept in self._kept for name in kept.sums} | {_best_name(self._best_step)}
        names += [path.name for path in self.folder.glob("best-*.safetensors") if path.name not in named]
        with writing(self.folder, "the checkpoints"):
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
        return names

    def _sweep(self) -> None:
        """Remove what a kill left half written."""
        if not self.folder.is_dir():
            return
        whole = {name for kept in self._kept for name in (*kept.sums, f"{kept.name}.sha256", f"{kept.name}.pt")}
        half = [*self.folder.glob(".*.tmp"), *self.folder.glob("step-*.pt"), *self.folder.glob("best-*.safetensors")]
        with writing(self.folder, "the checkpoints"):
            for path in half:
                if path.name not in whole:
                    path.unlink(missing_ok=True)

    def _newest_whole(self, before: int | None = None) -> dict[str, Any] | None:
        """Read the newest checkpoint, of fewer than ``before`` steps if that is said; what is damaged is put aside."""
        for kept in [each for each in reversed(self._kept) if before is None or each.step < before]:
            try:
                content, self._source = self._read(kept), kept
                return content
            except _Damaged as found:
                self._put_aside(kept, str(found))
        if before is not None:
            return None
        aside = sorted(path.name for path in self.folder.glob("damaged-*"))
        if aside:
            raise BundleError(
                f"no checkpoint in '{self.folder}' is whole: {', '.join(aside)}",
                mend=f"Put a whole copy in its place, or remove '{self.folder}' to train from the start.",
            )
        return None

    def _read(self, kept: _Kept) -> dict[str, Any]:
        """Read a checkpoint once all its files are seen to be what was written."""
        if f"{kept.name}.pt" not in kept.sums:
            raise _Damaged(f"{kept.name}.sha256 does not name {kept.name}.pt")
        for name, sha256 in kept.sums.items():
            try:
                with (self.folder / name).open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise _Damaged(f"{name} cannot be read ({error.strerror or error})") from error
            if found != sha256:
                raise _Damaged(f"{name} is not what was written")
        try:
            return _load(self.folder / f"{kept.name}.pt")
        except Exception as error:
            raise _Damaged(f"{kept.name}.pt cannot be loaded ({type(error).__name__})") from error

    def _put_aside(self, kept: _Kept, reason: str) -> None:
        self._kept.remove(kept)
        others = {name for each in self._kept for name in each.sums}
        names = {f"{kept.name}.sha256", f"{kept.name}.pt", *kept.sums} - others
        with writing(self.folder, "the checkpoints"):
            for name in sorted(names):
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).replace(self.folder / f"damaged-{name}")
        self._news.append(CheckpointDamaged(kept.step, str(self.folder / f"damaged-{kept.name}.pt"), reason))


class _Watched:
    """A file that takes no more once its writing was given up."""

    def __init__(self, file: BinaryIO, abandoned: threading.Event) -> None:
        self._file, self._abandoned = file, abandoned

    def write(self, data: bytes | memoryview) -> int:
        if self._abandoned.is_set():
            raise _Abandoned
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _at_once() -> None:
    """Nothing has to be waited for."""


def _load(path: Path) -> dict[str, Any]:
    return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))


def _found(folder: Path) -> list[_Kept]:
    """The checkpoints of a folder, by their sums."""
    kept = []
    for path in folder.glob("step-*.sha256"):
        match = _SUMS.fullmatch(path.name)
        if match is not None:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            sums = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
            kept.append(_Kept(int(match[1]), int(match[2] or 1), sums))
    return kept


def _save_bare(content: dict[str, Any], file: BinaryIO) -> None:
    """Save without torch's own sums, which take as long as a sha256 does: the whole file has one."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, file)
    finally:
        torch.serialization.set_crc32_options(before)


def _best_name(step: int) -> str:
    return f"best-{step}.safetensors"


def _yield_processor() -> None:
    """Have this thread give way to those that compute, for good: claiming more again takes privileges."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
