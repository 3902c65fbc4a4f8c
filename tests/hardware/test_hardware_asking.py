"""Another process makes calls and says what they took; what breaks it takes down nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from thrifty.hardware import asking
from thrifty.hardware.answering import _groups
from thrifty.hardware.asking import Asker
from thrifty.hardware.capture import Blank, Call, Key

# each starts a process that imports torch
pytestmark = pytest.mark.slow

ATEN = torch.ops.aten


def product(rows: int) -> tuple[Key, Call]:
    key = Key("mm", "float32", f"{rows}x64,64x64->{rows}x64", "cc>c")
    return key, Call(
        ATEN.mm.default,
        (Blank((rows, 64), (64, 1), torch.float32), Blank((64, 64), (64, 1), torch.float32)),
        {},
        2,
        4 * (2 * rows * 64 + 64 * 64),
    )


def beyond(rows: int) -> tuple[Key, Call]:
    """Look up a row that a table does not have, which ends the process."""
    table = Blank((rows, 4), (4, 1), torch.float32)
    key = Key("embedding", "float32", f"{rows}x4,1->1x4", "cc>c")
    return key, Call(ATEN.embedding.default, (table, torch.tensor([rows])), {}, 2, 64)


@pytest.fixture(scope="module")
def asker() -> Iterator[Asker]:
    with Asker("cpu", threads=1, last_cache_bytes=1 << 20) as one:
        yield one


@pytest.mark.alone
def test_a_larger_product_takes_longer_and_nothing_is_asked_twice(asker: Asker) -> None:
    calls = dict(map(product, (64, 4096)))
    found = asker.ask(calls)
    small, large = (found[key] for key in calls)
    assert 0 < small.warm_s < large.warm_s <= large.cold_s
    assert (small.moved_bytes, small.tensors) == (49_152, 2)
    again = asker.ask(calls)
    assert all(again[key] is found[key] for key in calls)


def test_what_breaks_the_process_is_left_out(asker: Asker) -> None:
    calls = dict([product(96), beyond(3), product(160), beyond(5), product(224)])
    found = asker.ask(calls)
    assert sorted(key.name for key in found) == ["mm", "mm", "mm"]


def test_what_cannot_run_or_travel_is_left_out(asker: Asker) -> None:
    key, call = product(32)
    wrong = Call(ATEN.mm.default, (call.args[0], call.args[0]), {}, 2, 1)
    unpacked = Call(ATEN.mm.default, (lambda: 0, call.args[1]), {}, 2, 1)
    stored = Call(ATEN.mm.default, (torch.empty(2, device="meta").untyped_storage(), call.args[1]), {}, 2, 1)
    others = {"wrong": wrong, "unpacked": unpacked, "stored": stored}
    calls = {key._replace(shapes=name): other for name, other in others.items()} | {key: call}
    assert set(asker.ask(calls)) == {key}


def test_closed_it_ends_its_process_and_can_be_asked_again() -> None:
    one = Asker("cpu")
    assert one._process is not None
    number = one._process.pid
    one.close()
    assert not Path(f"/proc/{number}").exists()
    assert len(one.ask(dict([product(48)]))) == 1
    one.close()
    one.close()


@pytest.mark.alone
def test_a_process_that_does_not_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_SILENCE_S", 0.0)
    monkeypatch.setattr(asking, "_END_S", 0.0)
    began = time.perf_counter()
    with Asker("cpu") as one:
        # it has not yet imported torch
        assert one.ask(dict([product(80)])) == {}
        assert one._process is None
    assert time.perf_counter() - began < 5


def test_calls_lie_in_memory_together_up_to_a_size_and_larger_ones_not_at_all() -> None:
    asked = [(key, call) for key, call in map(product, (64, 128, 192, 256))]
    sizes = [call.moved_bytes for _, call in asked]
    groups = list(_groups(asked, sizes[0] + sizes[1]))
    assert [[call.moved_bytes for _, call in group] for group in groups] == [sizes[:2]] + [
        [size] for size in sizes[2:] if size <= sizes[0] + sizes[1]
    ]
    assert list(_groups(asked, sizes[0] - 1)) == []
