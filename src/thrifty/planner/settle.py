"""Ask this machine about the ways that may be best, until the one with the best price was asked about."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from thrifty.errors import JobError
from thrifty.hardware.asking import Asker
from thrifty.planner.local import Local, key_of
from thrifty.spec import Device

# for one way, and after which no further way is asked about; within these seconds, or a share of the training that is
# planned, ways are asked about that seem slower than the best
SECONDS_A_WAY, SECONDS = 3.0, 6.0
_SPARE_SECONDS, _SPARE_SHARE = 1.5, 0.005
# for the tensors of what is asked about, and of the memory; filling larger ones takes longer than it is worth
_MOST_BYTES, _MEMORY_SHARE = 1 << 30, 0.25


@contextlib.contextmanager
def asker_of(device: Device) -> Iterator[Asker | None]:
    """Give an asker of this machine's device; none where no operator was timed, or ``THRIFTY_ASK_SECONDS`` is 0."""
    if not device.kernels or device.kind not in {"cpu", "cuda"} or not asking_seconds():
        yield None
        return
    with Asker(
        "cuda" if device.kind == "cuda" else "cpu",
        threads=device.threads,
        last_cache_bytes=max(device.cache_bytes.values(), default=0),
        most_bytes=min(int(_MEMORY_SHARE * device.memory_bytes), _MOST_BYTES),
    ) as asker:
        yield asker


def settle(local: Local) -> None:
    """Ask about the way with the best price, which may change it, until that was asked about; then about others.

    A GPU is asked about every way as it is traced.
    """
    began, asked = time.perf_counter(), set()
    most = min(asking_seconds(), SECONDS)
    while local.asker is not None and local.device.kind == "cpu":
        ranked = sorted(filter(local.fits, local.known.values()), key=lambda way: way.price.seconds)
        waiting = [way for way in ranked if key_of(way.settings) not in asked]
        if not waiting:
            break
        spare = max(_SPARE_SECONDS, _SPARE_SHARE * ranked[0].price.seconds)
        if time.perf_counter() - began > (most if waiting[0] is ranked[0] else min(spare, most)):
            break
        asked.add(key_of(waiting[0].settings))
        local.ask(waiting[0].settings, min(SECONDS_A_WAY, most))


def asking_seconds() -> float:
    """How long this machine may be asked: ``THRIFTY_ASK_SECONDS``, 0 for not at all.

    Raises:
        JobError: that is no number.
    """
    text = os.environ.get("THRIFTY_ASK_SECONDS", str(SECONDS))
    try:
        return max(float(text), 0.0)
    except ValueError as error:
        raise JobError(f"THRIFTY_ASK_SECONDS is '{text}', not a number of seconds") from error
