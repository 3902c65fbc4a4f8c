"""Cores for replicas: how many each gets on the nodes of a cluster, and which ones it then owns on its node."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from thrifty.errors import JobError
from thrifty.serve.cores import here

_held: list[IO[bytes]] = []


def cores_each(nodes: Sequence[int], replicas: int) -> int:
    """Return the most cores that each of so many equal replicas can have, none of them over two nodes.

    Args:
        nodes: cores of each.
        replicas: to place.

    Raises:
        JobError: there are fewer cores than replicas.

    >>> cores_each([8, 4], 3), cores_each([2], 2)
    (4, 1)
    """
    for each in range(max(nodes, default=0), 0, -1):
        if sum(node // each for node in nodes) >= replicas:
            return each
    raise JobError(
        f"{replicas} replicas do not fit on {sum(nodes)} cores", mend="Each has a core of its own: ask for fewer."
    )


def own_cores(count: int, folder: Path | None = None) -> list[int]:
    """Keep this thread, and those that it starts, to cores that no other replica of this user on this machine has.

    A core is owned by a lock on a file, which the system takes back when the process ends, however it ends. Where
    too few are free, as while a replica still drains beside its successor, others are shared.

    Args:
        count: of cores.
        folder: of the locks; one of the user's own when left out.
    """
    place = folder or Path(tempfile.gettempdir()) / f"thrifty-cores-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    taken: list[int] = []
    everywhere = here()
    for core in everywhere:
        if len(taken) == count:
            break
        lock = (place / str(core)).open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        taken.append(core)
    taken += [core for core in everywhere if core not in taken][: count - len(taken)]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, taken)
    return taken
