"""Pages that blocks touch: each once, holes of earlier work when they are filled, mapped blocks while they live."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from torch import nn

from thrifty.cost import heap_peak, touched
from thrifty.cost.touched import accounts, mallinfo

pytestmark = pytest.mark.skipif(mallinfo() is None, reason="this C library does not tell what its heap holds")
MIB = 1 << 20
SCRIPT = """
import json
import torch
from thrifty.cost.touched import Touched
from thrifty.hardware.pages import keep_pages

MIB = 1 << 20
found = {}

def block(mib):
    return torch.empty(int(mib * MIB), dtype=torch.uint8)

def laid(name, pages, *blocks):
    before = pages.grown_bytes
    for each in blocks:
        pages.lie(each)
    found[name] = pages.grown_bytes - before

keep_pages("small")
worked = [block(1).fill_(1) for _ in range(40)]
pins = worked[::2]
del worked
pages = Touched(huge=False)
kept = [block(1) for _ in range(20)]
laid("in holes", pages, *kept)
laid("again", pages, *kept)
laid("resident already", pages, *pins)
new = block(30)
laid("beyond", pages, new)
laid("a view", pages, new[MIB:].view(29, MIB))
del new
laid("in its place", pages, block(29))
held = pages.grown_bytes
large = block(64)
found["mapped"] = pages.grown_bytes - held
laid("mapped is counted already", pages, large)
del large
found["and no longer"] = pages.grown_bytes - held
other = [b"x" * (4000 + number % 2) for number in range(15_000)]
pages.look()
found["no tensors"] = pages.grown_bytes - held
laid("none", pages, torch.empty(0))
keep_pages("all")
huge = Touched(huge=True)
top = block(20)
laid("huge", huge, block(9))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("what", "least", "most"),
    [
        ("in holes", 19, 20.2),
        ("again", 0, 0),
        ("resident already", 0, 0.2),
        ("beyond", 29, 30.1),
        ("a view", 0, 0),
        ("in its place", 0, 0.1),
        ("mapped", 64, 64.1),
        ("mapped is counted already", 0, 0),
        ("and no longer", 0, 0.1),
        ("no tensors", 15, 60),
        ("none", 0, 0),
        ("huge", 8, 12),
    ],
)
@pytest.mark.slow
def test_pages_are_counted_once_where_blocks_lie(found: dict[str, Any], what: str, least: float, most: float) -> None:
    assert least * MIB <= found[what] <= most * MIB, found


def test_another_allocator_in_its_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accounts()
    told = mallinfo()
    assert told is not None
    before = told()
    monkeypatch.setattr(touched, "mallinfo", lambda: lambda: before)
    assert not accounts()

    def built() -> nn.Module:
        raise AssertionError

    assert heap_peak(built, lambda *_: None, {}, precision="fp32", optimizer=lambda _: None) is None  # type: ignore[arg-type,return-value]
