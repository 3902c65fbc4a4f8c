"""Take one training step without computing: every block is really asked for and given back, and no page is touched.

What a process holds is more than what lives at once. Between blocks that come and go the C library's heap keeps holes,
pinned by the small objects of autograd, and how many depends on every size and order. So the step is taken for real, on
real tensors with a real graph, but each operator only allocates its results. Untouched pages cost nothing, and the
places of the blocks tell which pages a real step would have written to (`thrifty.cost.touched`): that is what would be
resident of a process that keeps what it was given, as training does on a CPU (`thrifty.hardware.pages`).
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import re
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thrifty.cost.allocating import Allocating
from thrifty.cost.hearsay import Hearsay
from thrifty.cost.touched import accounts
from thrifty.errors import JobError
from thrifty.hardware.pages import Keeping, keep_pages
from thrifty.models.precision import autocasting, with_precision
from thrifty.optim.release import Release

Loss = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Any]]
Shapes = dict[str, tuple[tuple[int, ...], str]]
# of the processor's time; on a busy machine a clock on the wall says nothing of how far a dry run is
DRY_RUN_SECONDS = 60.0
# from heaps that start unlike; the largest counts, for a long run meets many
RUNS = 3


@dataclass(frozen=True)
class HeapPeak:
    """What becomes resident of the heap in a process that has given back what was free, in bytes.

    Attributes:
        step: at the most of a few training steps, weights and optimizer states included; the most of all dry runs.
        evaluation: at the most of a forward pass without gradients after them, likewise.
    """

    step: int
    evaluation: int


def heap_peak(
    build: Callable[[], nn.Module],
    loss: Loss,
    batch: Shapes,
    *,
    precision: str,
    optimizer: Callable[[nn.Module], Optimizer],
    accumulation: int = 1,
    evaluation_batch: Shapes | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    keeping: Keeping = "all",
    steps: int = 3,
    others: Sequence[Shapes] = (),
    release: bool = False,
    told: Hearsay | None = None,
) -> HeapPeak | None:
    """Take a few steps without computing; return how far the heap grew, None where glibc's is not what torch uses.

    Args:
        build, loss, batch, precision, optimizer: as for `thrifty.cost.trace_step`.
        accumulation: micro-batches of an optimizer step; more than two change nothing any more.
        evaluation_batch: of the validation that follows; none when left out.
        memory_format: of images and convolution weights.
        keeping: what training keeps of freed memory.
        steps: the holes of the heap settle in the second or third.
        others: batches of other sizes that steps take between those of ``batch``, the largest: each leaves its holes,
            and the kernels that are compiled for its shapes.
        release: as for `thrifty.cost.trace_step`.
        told: what earlier dry runs found out of the same operators; is told what this one finds out.

    Raises:
        JobError: the model looks at values, or asks for more than this machine has addresses for; it says which.
    """
    if not accounts() or not hasattr(os, "fork"):
        return None

    def dry_run(start: int, told: Hearsay) -> HeapPeak:
        keep_pages(keeping)
        small = _small_blocks(start)  # noqa: F841
        with Allocating(maps=keeping != "all") as heap, contextlib.ExitStack() as ending:
            heap.building = True
            model = with_precision(build().train(), precision, accumulating=accumulation > 1)
            heap.building = False
            if memory_format != torch.contiguous_format:
                model = model.to(memory_format=memory_format)  # type: ignore[call-overload]
            stepper = optimizer(model)
            released = Release(stepper, heap.step) if release else None
            taken = [*others, *[batch] * steps]
            random.Random(start).shuffle(taken)
            # most of a dry run is asking fake tensors: one copy does it for all
            heap.known |= told.wait() if start else told.told_before()
            if start == 0:
                ending.callback(told.tell, heap.known, RUNS - 1)
            for each in taken:
                _dry_step(heap, model, loss, each, stepper, precision, min(accumulation, 2), memory_format, released)
            heap.look()
            step, heap.peak_bytes = heap.peak_bytes, 0
            if evaluation_batch is not None:
                model.eval()
                with torch.no_grad(), autocasting("cpu", precision):
                    loss(model, _tensors(evaluation_batch, memory_format))
        return HeapPeak(step=step, evaluation=heap.peak_bytes)

    with contextlib.ExitStack() as stack:
        told = told or stack.enter_context(contextlib.closing(Hearsay()))
        runs = _in_copies([functools.partial(dry_run, start, told) for start in range(RUNS)])
    return HeapPeak(step=max(run.step for run in runs), evaluation=max(run.evaluation for run in runs))


def _dry_step(
    heap: Allocating,
    model: nn.Module,
    loss: Loss,
    batch: Shapes,
    stepper: Optimizer,
    precision: str,
    accumulation: int,
    memory_format: torch.memory_format,
    release: Release | None = None,
) -> None:
    for _ in range(accumulation):
        tensors = _tensors(batch, memory_format)
        with autocasting("cpu", precision):
            total, _ = loss(model, tensors)
        if release is not None:
            release.backward(total, 1.0, rate=1e-3)
            return
        total.backward()
        del total, tensors
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    with heap.step():
        stepper.step()
    stepper.zero_grad(set_to_none=True)


def _small_blocks(start: int) -> list[Tensor]:
    """Blocks with gaps between, others for each start: as imports and earlier work leave a heap, never twice alike."""
    sizes = random.Random(start).choices((64, 1_000, 5_000, 30_000, 100_000), k=400 * start)
    return [torch.empty(size, dtype=torch.uint8) for size in sizes][::2]


def _in_copies(works: Sequence[Callable[[], HeapPeak]]) -> list[HeapPeak]:
    """Work in copies of this process at the same time, whose heaps are as it is here and leave no trace here.

    The copies compute nothing, so the threads that a copy lacks are not missed. A copy that inherits a lock may wait
    for ever, which takes no time of a processor's: none is waited for longer while all stand still. Once one has
    answered, the others get a few times as long, and are then left out.
    """
    gc.collect()
    copies = dict(_copy(work) for work in works)
    began, limit_s = time.monotonic(), DRY_RUN_SECONDS
    said: list[str] = []
    used_s = 0.0
    while copies:
        answered = select.select(list(copies), [], [], max(0.0, began + limit_s - time.monotonic()))[0]
        if not answered:
            before_s, used_s = used_s, max(map(_used_s, copies.values()))
            if said or used_s == before_s or used_s > DRY_RUN_SECONDS:
                break
            limit_s += DRY_RUN_SECONDS
            continue
        said += [_heard(copies.pop(reading), reading) for reading in answered]
        limit_s = min(limit_s, 5 * (time.monotonic() - began) + 5)
    for reading, child in copies.items():
        os.kill(child, signal.SIGKILL)
        _heard(child, reading)
    found = [HeapPeak(*map(int, each.split())) for each in said if re.fullmatch(r"\d+ \d+", each)]
    if not found:
        why = said[0] if said else f"after {used_s:.0f} s of its own it had not ended"
        raise JobError(
            f"a step could not be taken on memory alone: {why}"[:400],
            mend="Leave the prediction out and let a probe take real steps.",
        )
    return found


def _used_s(process: int) -> float:
    """Seconds of processors that a process has used (proc_pid_stat(5), fields 14 and 15); 0 where nothing says."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _copy(work: Callable[[], HeapPeak]) -> tuple[int, int]:
    """Start working in a copy; returns where it will say what it found, and its process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # the pool of threads was not copied: whoever asked for it would wait for ever
        torch.set_num_threads(1)
        said = "died"
        try:
            found = work()
            said = f"{found.step} {found.evaluation}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, said.encode()[:4096])
            os._exit(0)
    os.close(writing)
    return reading, child


def _heard(child: int, reading: int) -> str:
    """What a copy says, or by what it ended; it is gone then."""
    try:
        said = " ".join(os.read(reading, 4096).decode().split())
    finally:
        os.close(reading)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said or f"it ended by signal {-ended}"


def _tensors(shapes: Shapes, memory_format: torch.memory_format) -> dict[str, Tensor]:
    made = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, (shape, dtype) in shapes.items()}
    return {key: t.contiguous(memory_format=memory_format) if t.dim() == 4 else t for key, t in made.items()}
