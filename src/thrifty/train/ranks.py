"""The world of a run: processes, one a device, that take each step together; of one process it costs nothing.

What ranks decide alike they decide from the same numbers: each gives its own, all get those of every rank in the same
order, over the processor's memory, so that no GPU is waited for.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from thrifty.data import Batch

Item = TypeVar("Item")

# the dimension of the mesh that the batch is cut along; another one may stand beside it on many machines
DATA = "data"
# a rank may write a checkpoint, or compile, while the others wait; one that died is told by its launcher at once
_PATIENCE = timedelta(hours=2)
_SEEDS = 1 << 62


@dataclass(frozen=True)
class World:
    """The ranks of a run.

    Attributes:
        rank: this process's number, from 0; rank 0 writes what is written.
        size: ranks in all.
        mesh: their devices, with a dimension `DATA`; None for one process alone.

    >>> ALONE.gather(1.5, 2.0), ALONE.total(3), ALONE.of_first(4.0)
    ([(1.5, 2.0)], 3, 4.0)
    """

    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    @property
    def group(self) -> dist.ProcessGroup:
        """Of all ranks that cut the batch among them."""
        assert self.mesh is not None
        return self.mesh.get_group(DATA)

    def gather(self, *values: float) -> list[tuple[float, ...]]:
        """Return what each rank gave, as many numbers each, in the order of the ranks: the same bits on every rank."""
        if self.size == 1:
            return [values]
        own = torch.tensor(values, dtype=torch.float64)
        everyones = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(everyones, own, group=self.group)
        return [tuple(each.tolist()) for each in everyones]

    def total(self, count: int) -> int:
        """Add up a whole number of each rank."""
        return count if self.size == 1 else sum(int(count) for (count,) in self.gather(count))

    def of_first(self, value: float) -> float:
        """Return rank 0's number: what only its clock or its disk knows."""
        return self.gather(value)[0][0]

    def add_up(self, sums: np.ndarray) -> np.ndarray:
        """Add arrays of float64 over the ranks, in their order."""
        if self.size == 1:
            return sums
        own = torch.from_numpy(np.ascontiguousarray(sums, np.float64))
        everyones = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(everyones, own, group=self.group)
        return np.sum([each.numpy() for each in everyones], axis=0)

    def everyones(self, item: Item) -> list[Item]:
        """Return what each rank gave, any plain thing, in the order of the ranks."""
        if self.size == 1:
            return [item]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, item, group=self.group)
        return found

    def share(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Deal batches to the ranks, as many to each; the last may be one without answers, to be computed along."""
        if self.size == 1:
            yield from batches
            return
        own: Batch | None = None
        last: Batch | None = None
        number = -1
        for number, last in enumerate(batches):
            own = last if number % self.size == self.rank else own
            if number % self.size == self.size - 1:
                assert own is not None
                yield own
                own = None
        if last is not None and number % self.size != self.size - 1:
            yield own if own is not None else {name: each for name, each in last.items() if name != "y"}

    def own_draws(self) -> contextlib.AbstractContextManager[None]:
        """Have torch draw other random numbers on each rank while this lasts, say for dropout.

        They follow from the numbers that all ranks draw alike, which a checkpoint keeps.
        """
        return contextlib.nullcontext() if self.size == 1 else self._drawn_apart()

    @contextlib.contextmanager
    def _drawn_apart(self) -> Iterator[None]:
        seed = int(torch.randint(_SEEDS, (), dtype=torch.int64))
        devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed + self.rank)
            yield


ALONE = World()


@contextlib.contextmanager
def joined(device: str) -> Iterator[World]:
    """Join the world that ``torchrun``'s variables tell of, while in the block; this rank's device is then current.

    Tensors of a GPU travel by NCCL, those of the processor by gloo, over the loopback unless the environment names
    another network.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        size = dist.get_world_size()
        yield World(dist.get_rank(), size, init_device_mesh(device, (size,), mesh_dim_names=(DATA,)))
    finally:
        dist.destroy_process_group()


def root_of_squares(values: Iterable[float]) -> float:
    """The norm of what lies in parts, from the norms of the parts.

    >>> root_of_squares([3.0, 4.0])
    5.0
    """
    return math.sqrt(sum(value * value for value in values))
