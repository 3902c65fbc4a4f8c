"""Ways of computing the same are tried at the job's shapes, in another process; what was found is kept per machine.

Another process, for the planner's own keeps its heap as it is.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError

from thrifty.files import write_atomic
from thrifty.hardware.probe import probe as probe_machine
from thrifty.hardware.stopwatch import once
from thrifty.spec import Device
from thrifty.spec.folders import cache_folder
from thrifty.spec.plain import Plain

# tries of each way that nobody disturbed, of so many at most; or as many that differ by no more than this factor
_CLEAN, _TRIES, _AGREE = 4, 24, 1.08
# seconds after which ways that are not sure by then are given up; and the other process
_PATIENCE_S, _TIMEOUT_S = 2.0, 60.0
# a way that is so many times slower at first is not tried again
_HOPELESS = 2.0

Seconds = dict[str, float]
ShapeT = TypeVar("ShapeT", bound=Plain)


class _Timed(Plain):
    shape: dict[str, Any]
    seconds: Seconds


class _Known(Plain):
    timed: tuple[_Timed, ...] = ()


def seconds_of(
    shapes: Sequence[ShapeT], device: Device, *, shape_of: type[ShapeT], name: str, module: str
) -> dict[ShapeT, Seconds]:
    """Seconds of each way of each shape on this machine's device, from its cache, or measured now and kept there.

    A shape whose measurement fails, or that others disturbed, is left out.

    Args:
        shapes: of one class, each once.
        device: this machine's.
        shape_of: their class.
        name: what is tried, as its cache file is called.
        module: has a function ``main(kind, threads)`` that calls `answer`.
    """
    path = cache_folder() / f"{name}-{_machine(device)}.json"
    known = {shape_of.model_validate(each.shape): each.seconds for each in _read(path).timed}
    new = [each for each in dict.fromkeys(shapes) if each not in known]
    if new:
        known.update(_asked(new, device, module))
        kept = _Known(timed=tuple(_Timed(shape=each.model_dump(), seconds=took) for each, took in known.items()))
        write_atomic(path, kept.model_dump_json(), purpose=f"what {name} takes here")
    return {shape: known[shape] for shape in shapes if shape in known}


def answer(shape_of: type[ShapeT], threads: int, seconds: Callable[[ShapeT], Seconds]) -> None:
    """Time the shapes on standard input, and write a list of seconds by way; of another process.

    Args:
        shape_of: class of the shapes.
        threads: that torch computes with.
        seconds: of each way of a shape.
    """
    torch.set_num_threads(threads)
    print(json.dumps([seconds(shape_of.model_validate(each)) for each in json.load(sys.stdin)]))


def tried(ways: Mapping[str, Callable[[], Any]]) -> Seconds:
    """Seconds of each way, tried in turn so that a slow moment is shared; none where others had the cores.

    A way that is hopeless at first counts with what it took then.
    """
    first: Seconds = {}
    for name, work in ways.items():
        work()
        first[name] = once(work)[0]
    limit = _HOPELESS * min(first.values())
    tries: dict[str, list[tuple[float, int]]] = {name: [] for name in ways if first[name] <= limit}
    began = time.perf_counter()
    for number in range(_TRIES):
        if number and time.perf_counter() - began > _PATIENCE_S:
            break
        for name, each in tries.items():
            each.append(once(ways[name]))
        settled = {name: _settled(each) for name, each in tries.items()}
        if all(settled.values()):
            return {**first, **settled}
    return {}


def _settled(tries: Sequence[tuple[float, int]]) -> float:
    """Seconds that are sure by now; 0 where none are.

    Threads that wait for one that lost its core tell nothing of a way, unless the quickest tries agree all the same.

    >>> _settled([(1.0, 0), (1.2, 0), (9.0, 3), (1.1, 0), (1.1, 0)]), _settled([(1.0, 1), (1.01, 2), (5.0, 0)])
    (1.1, 0.0)
    """
    clean = [seconds for seconds, switches in tries if not switches]
    if len(clean) >= _CLEAN:
        return statistics.median(clean)
    quickest = sorted(seconds for seconds, _ in tries)[:_CLEAN]
    agree = len(tries) >= 2 * _CLEAN and quickest[-1] <= _AGREE * quickest[0]
    return statistics.median(quickest) if agree else 0.0


def _asked(shapes: Sequence[ShapeT], device: Device, module: str) -> dict[ShapeT, Seconds]:
    asked = json.dumps([each.model_dump() for each in shapes])
    kind = "cuda" if device.kind == "cuda" else "cpu"
    program = [sys.executable, "-c", f"from {module} import main; main({kind!r}, {device.threads})"]
    try:
        done = subprocess.run(program, input=asked, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        said = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return {}
    return {shape: found for shape, found in zip(shapes, said, strict=True) if found}


def _read(path: Path) -> _Known:
    try:
        return _Known.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return _Known()


def _machine(device: Device) -> str:
    """What measurements hold for: the device, its threads, and torch."""
    from importlib.metadata import version

    said = f"{device.name}\n{device.kind}\n{device.threads}\n{version('torch')}\n{probe_machine().isa}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]
