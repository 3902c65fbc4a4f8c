"""Memory that a process keeps and gives back: glibc is told once, and the kernel clears no page twice."""

from __future__ import annotations

import ctypes
import gc
import json
import platform
import subprocess
import sys
import weakref

import pytest

from thrifty.hardware.pages import LARGE_BYTES, give_back, keep_pages, keeping, settled
from thrifty.ledger import resident_bytes

MIB = 1 << 20
on_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="glibc alone"
)

# blocks that come and go: pages mapped anew in all rounds but the first, and MiB resident before and after giving back
ROUNDS = """
import json, resource, sys
from thrifty.hardware.pages import give_back, keep_pages
from thrifty.ledger import resident_bytes

assert keep_pages(sys.argv[1]) == (sys.argv[1] != "default")
for count in range(5):
    blocks = [b"x" * (size << 20) for size in (64, 3, 40)]
    del blocks
    if not count:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
cleared = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = resident_bytes()
give_back()
print(json.dumps([cleared, held >> 20, resident_bytes() >> 20]))
"""


def test_what_is_kept_is_told_where_the_allocator_obeys(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[int, int] = {}

    class Library:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            said[name] = value
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    monkeypatch.setattr("sys.platform", "linux")
    assert keeping("cuda", "none") == keeping("tpu", "full") == "default"
    assert (keeping("cpu", "none"), keeping("cpu", "selective"), keeping("cpu", "full")) == ("all", "small", "small")
    assert not keep_pages("default") and not said
    assert keep_pages("all") and said[-4] == 0
    assert keep_pages("small") and said[-4] > 0 and said[-3] == LARGE_BYTES
    assert said[-1] == -1, "no free top is given back"
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert keeping("cpu", "none") == "default" and not keep_pages("all")
    monkeypatch.setattr("sys.platform", "darwin")
    assert keeping("cpu", "none") == "default" and not keep_pages("all")


@pytest.mark.slow
@on_glibc
def test_the_kernel_clears_no_page_twice_and_gets_all_back_when_told() -> None:
    def rounds(how: str) -> tuple[int, int, int]:
        cleared, held, left = json.loads(subprocess.check_output([sys.executable, "-c", ROUNDS, how]))
        return cleared, held, left

    cleared, held, left = rounds("all")
    assert cleared < 1000
    assert held - left > 100
    large, held, left = rounds("small")
    assert 4 * 104 * MIB // 4096 <= large < 4 * 106 * MIB // 4096, "blocks of 64 and 40 MiB, none of 3"
    assert held - left < 10
    assert rounds("default")[0] >= large


@on_glibc
def test_what_is_freed_is_given_back() -> None:
    blocks = [b"x" * 50_000 for _ in range(4_000)]
    pin = b"y" * 50_000
    held = resident_bytes()
    del blocks
    give_back()
    assert resident_bytes() < held - 100 * 2**20
    assert pin


@pytest.mark.slow
def test_what_was_there_is_left_out_of_garbage_and_what_came_since_is_not() -> None:
    class Knot:
        def __init__(self) -> None:
            self.itself = self

    left_out = gc.get_freeze_count()
    gc.unfreeze()
    try:
        with settled():
            frozen = gc.get_freeze_count()
            assert frozen > 1000
            with settled():
                assert gc.get_freeze_count() >= frozen, "the inner one changes nothing"
            assert gc.get_freeze_count() >= frozen
            gone = weakref.ref(Knot())
            gc.collect()
            assert gone() is None
        assert gc.get_freeze_count() == 0
    finally:
        if left_out:
            gc.freeze()
