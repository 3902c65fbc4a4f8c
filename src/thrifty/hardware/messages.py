"""How fast tensors travel between ranks of this machine: collectives of two sizes, timed once for a count of ranks.

Units: ``bytes`` are those of the whole tensor that a collective sums, gathers or shares out.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from thrifty.errors import StorageError
from thrifty.files import write_atomic
from thrifty.hardware.probe import probe
from thrifty.spec.device import Link, Quantity
from thrifty.spec.folders import cache_folder
from thrifty.spec.plain import Plain

Collective = Literal["all_reduce", "all_gather", "reduce_scatter"]
# so few bytes that latency rules them, and about the most that gradients travel in at once
SMALL_BYTES, LARGE_BYTES = 4 << 10, 16 << 20
_REPEATS = {SMALL_BYTES: 40, LARGE_BYTES: 7}
# ranks import torch, meet, and are done; one that hangs is given up
_PATIENCE_S = 120.0
# how long the cores are watched before, and the share of them that must be free
_WATCH_S, _FREE_SHARE = 0.3, 0.75
# What is assumed where nothing was timed: bytes/s of a rank, seconds of a step. Gloo's are the best of four tries on
# two cores of a Sapphire-Rapids class Xeon that others used; its reduce-scatter copies most. NCCL's are of PCIe 4.
_ASSUMED: dict[str, dict[Collective, tuple[float, float]]] = {
    "cpu": {"all_reduce": (8e8, 2e-4), "all_gather": (4.5e8, 2e-4), "reduce_scatter": (1.2e8, 3e-4)},
    "cuda": {"all_reduce": (1e10, 3e-5), "all_gather": (1e10, 3e-5), "reduce_scatter": (1e10, 3e-5)},
}


class Messages(Plain):
    """What travels between ranks takes, by collective.

    Attributes:
        ranks: that take part.
        links: for each collective, such that `thrifty.cost.network` gives its seconds: the bandwidth of a rank and the
            latency of a step.
        timed: whether it was timed here; else it is assumed.
    """

    ranks: int
    links: dict[Collective, Link]
    timed: bool = True

    @property
    def source(self) -> str:
        """Where the numbers come from."""
        return self.links["all_reduce"].bytes_per_second.source


def messages_here(kind: str, ranks: int) -> Messages:
    """Return what collectives take between ranks on this machine: kept from before, timed now, or assumed.

    They are timed where most of the cores are free, in processes of their own, and kept in the cache folder.
    ``THRIFTY_MEASURE_SECONDS=0`` has nothing timed.

    Args:
        kind: of the devices, ``cpu`` (gloo, over the loopback) or ``cuda`` (NCCL).
        ranks: two or more.
    """
    found = probe()
    version = importlib.metadata.version("torch")
    where = found.gpus[0].uuid if kind == "cuda" and found.gpus else f"{kind}-{found.cores}"
    path = cache_folder() / "hardware" / f"{found.fingerprint}-{where}-{ranks}-messages-torch{version}.json"
    with contextlib.suppress(OSError, ValidationError):
        return Messages.model_validate_json(path.read_bytes())
    if os.environ.get("THRIFTY_MEASURE_SECONDS") == "0":
        return assumed(kind, ranks, "nothing was to be timed")
    if free_cores() < _FREE_SHARE * found.cores:
        return assumed(kind, ranks, "other processes had the cores")
    seconds = time_messages(kind, ranks)
    if seconds is None:
        return assumed(kind, ranks, "its ranks did not meet")
    today = datetime.date.today().isoformat()
    done = Messages(ranks=ranks, links=_links(seconds, ranks, f"measured {today}, torch {version}, {ranks} ranks"))
    # a cache that cannot be written costs the next plan its seconds again, and nothing else
    with contextlib.suppress(StorageError):
        write_atomic(path, done.model_dump_json(indent=1), purpose="the measurement of this machine")
    return done


def assumed(kind: str, ranks: int, reason: str) -> Messages:
    """Return what is assumed of a kind of device that was not timed, with the reason."""
    links = {name: _link(*numbers, f"assumed: {reason}") for name, numbers in _ASSUMED[kind].items()}
    return Messages(ranks=ranks, links=links, timed=False)


def free_cores(stat: Path = Path("/proc/stat"), seconds: float = _WATCH_S) -> float:
    """Return how many cores nobody used while this process slept; all there may be where the system does not tell."""

    def idle_s() -> float:
        try:
            return float(stat.read_text().split(maxsplit=6)[4]) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return math.inf

    before = idle_s()
    time.sleep(seconds if math.isfinite(before) else 0.0)
    after = idle_s()
    return (after - before) / seconds if math.isfinite(before) else math.inf


def time_messages(kind: str, ranks: int) -> dict[tuple[Collective, int], float] | None:
    """Time collectives between so many processes: seconds by collective and bytes; None where they do not finish."""
    with tempfile.TemporaryDirectory(prefix="thrifty-messages-") as folder:
        program = "from thrifty.hardware.messages import main; main({}, {}, {!r}, {!r})"
        environment = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", **os.environ, "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, "-c", program.format(rank, ranks, kind, f"{folder}/meet")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            for rank in range(ranks)
        ]
        ends = time.monotonic() + _PATIENCE_S
        try:
            said = [each.communicate(timeout=max(0.0, ends - time.monotonic()))[0] for each in started]
        except subprocess.TimeoutExpired:
            return None
        finally:
            for each in started:
                each.kill()
                each.wait()
    if any(each.returncode for each in started):
        return None
    return {(name, size): seconds for name, size, seconds in json.loads(said[0].splitlines()[-1])}


def main(rank: int, ranks: int, kind: str, meet: str) -> None:
    """Be one of the ranks; the first prints rows of collective, bytes and seconds as JSON."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if kind == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if kind == "cuda" else "gloo", init_method=f"file://{meet}", rank=rank, world_size=ranks
    )
    rows = [(name, size, _timed(work, size, kind)) for size in _REPEATS for name, work in _works(size, ranks, kind)]
    if rank == 0:
        print(json.dumps(rows), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def _works(size: int, ranks: int, kind: str) -> Iterator[tuple[Collective, Callable[[], Any]]]:
    import torch
    import torch.distributed as dist

    part = size // 4 // ranks
    whole, own = torch.ones(part * ranks, device=kind), torch.ones(part, device=kind)
    yield "all_reduce", lambda: dist.all_reduce(whole)
    yield "all_gather", lambda: dist.all_gather_into_tensor(whole, own)
    yield "reduce_scatter", lambda: dist.reduce_scatter_tensor(own, whole)


def _timed(work: Callable[[], Any], size: int, kind: str) -> float:
    """Median seconds of a collective that all ranks begin together."""
    import torch
    import torch.distributed as dist

    taken = []
    for _ in range(_REPEATS[size] + 2):
        dist.barrier()
        began = time.perf_counter()
        work()
        if kind == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    # the first ones connect
    return statistics.median(taken[2:])


_COLLECTIVES: tuple[Collective, ...] = ("all_reduce", "all_gather", "reduce_scatter")


def _links(seconds: dict[tuple[Collective, int], float], ranks: int, source: str) -> dict[Collective, Link]:
    found = {}
    for name in _COLLECTIVES:
        small_s, large_s = seconds[name, SMALL_BYTES], seconds[name, LARGE_BYTES]
        # as `thrifty.cost.network` has it: a step's latency log2(n) times, and each byte sent on to n - 1 others
        passes = (2 if name == "all_reduce" else 1) * (ranks - 1) / ranks
        latency_s = small_s / math.log2(max(2, ranks))
        rate = passes * LARGE_BYTES / max(large_s - small_s, 1e-9)
        said = f"{LARGE_BYTES >> 20} MiB in {large_s * 1e3:.3g} ms, {SMALL_BYTES >> 10} KiB in {small_s * 1e6:.3g} us"
        found[name] = _link(rate, latency_s, f"{source}, {name}: {said}")
    return found


def _link(rate: float, latency_s: float, source: str) -> Link:
    return Link(
        name="between ranks",
        bytes_per_second=Quantity(value=rate, source=source),
        latency_s=Quantity(value=latency_s, source=source),
    )
