"""What one copy tells reaches the others, and nobody waits for ever for one that does not."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Iterator

import pytest

from thrifty.cost import hearsay
from thrifty.cost.hearsay import Hearsay


@pytest.fixture
def told() -> Iterator[Hearsay]:
    with contextlib.closing(Hearsay()) as made:
        yield made


def test_each_listener_hears_it_and_those_that_come_later_do(told: Hearsay) -> None:
    assert told.told_before() == {}
    told.tell({("mm", (2, 3)): "a"}, listeners=2)
    for _ in range(2):
        assert told.wait() == {("mm", (2, 3)): "a"}
    assert told.told_before() == {("mm", (2, 3)): "a"}
    told.tell({("mm", (2, 3)): "a", "add": "b"}, listeners=0)
    assert told.told_before() == {("mm", (2, 3)): "a", "add": "b"}


def test_a_copy_tells_the_one_it_was_made_from(told: Hearsay) -> None:
    child = os.fork()
    if child == 0:
        told.tell({"from": "the copy"}, listeners=1)
        os._exit(0)
    assert told.wait() == {"from": "the copy"}
    os.waitpid(child, 0)


def test_patience_ends(told: Hearsay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearsay, "PATIENCE_SECONDS", 0.05)
    began = time.monotonic()
    assert told.wait() == {}
    assert 0.04 < time.monotonic() - began < 4


@pytest.mark.parametrize("found", [{"a": lambda: 0}, {lambda: 0: "a"}], ids=["value", "key"])
def test_what_cannot_be_told_is_not_waited_for(told: Hearsay, found: dict[object, object]) -> None:
    told.tell(found, listeners=1)
    began = time.monotonic()
    assert told.wait() == {}
    assert time.monotonic() - began < 4


def test_half_of_it_is_nothing(told: Hearsay) -> None:
    said = pickle.dumps({"a": "b" * 1000})
    os.pwrite(told._file.fileno(), said[:600], 0)
    assert told.told_before() == {}
