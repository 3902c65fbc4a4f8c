"""Attention is timed once per machine and shape, in another process, and the plan takes the fastest way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import made_devices
from thrifty.models import build
from thrifty.models.layers import ATTENTION, direction
from thrifty.planner import declared_dataset, trials
from thrifty.planner.attention import Shape, fastest, time_attention, with_attention
from thrifty.planner.learning import decide
from thrifty.planner.rules import Reasons
from thrifty.spec import Device, parse_job

SHAPE = Shape(batch=2, heads=2, length=16, width=8, causal=True, padded=False, dtype="float32", training=True)
DEVICE = made_devices.device()
JOB = parse_job(
    {
        "name": "a",
        "data": {"kind": "language", "tokens": 100_000, "vocabulary": 300, "length": 16},
        "model": "gpt-nano",
        "train": {"batch": 2, "steps": 5},
    }
)


def planned(device: Device) -> tuple[Any, Reasons]:
    why = Reasons([])
    dataset = declared_dataset(JOB.data)  # type: ignore[arg-type]
    return with_attention(decide(JOB, dataset, why), dataset, device, why), why


@pytest.mark.slow
@pytest.mark.alone
def test_each_way_is_timed_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = made_devices.device()
    other = SHAPE.model_copy(update={"training": False, "padded": True, "causal": False})
    found: dict[Shape, dict[str, float]] = {}
    for _ in range(2):
        found = time_attention([SHAPE, other], device)
        if len(found) == 2:
            break
    else:
        pytest.skip("other processes had the cores each time")
    assert set(found) == {SHAPE, other}
    for seconds in found.values():
        assert set(seconds) == set(ATTENTION)
        assert all(0 < each < 1 for each in seconds.values())
    monkeypatch.setattr(trials, "_asked", lambda *_: pytest.fail("it was measured twice"))
    assert time_attention([other, SHAPE], device) == {other: found[other], SHAPE: found[SHAPE]}


def test_what_cannot_be_measured_is_left_to_the_rule(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_asked", lambda *_: {})
    learning, why = planned(DEVICE)
    assert learning.model.attention == {}
    assert not [line for line in why.lines if line.field.startswith("attention")]


def test_a_cache_that_is_damaged_is_made_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[Shape]] = []

    def says(shapes: list[Shape], *_: object) -> dict[Shape, dict[str, float]]:
        asked.append(shapes)
        return {shape: {"sdpa": 1.0} for shape in shapes}

    monkeypatch.setattr(trials, "_asked", says)
    device = DEVICE
    time_attention([SHAPE], device)
    (kept,) = cache.glob("attention-*.json")
    kept.write_text("{")
    assert time_attention([SHAPE], device) == {SHAPE: {"sdpa": 1.0}}
    assert len(asked) == 2


def test_the_plan_takes_the_fastest_for_each_dtype_and_direction(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(shapes: list[Shape], *_: object) -> dict[Shape, dict[str, float]]:
        best = {True: "in_chunks", False: "written_out"}
        return {each: {way: 1.0 if way == best[each.training] else 2.0 for way in ATTENTION} for each in shapes}

    monkeypatch.setattr(trials, "_asked", says)
    learning, why = planned(DEVICE)
    assert learning.model.attention["float32 training"] == "in_chunks"
    assert learning.model.attention["float32 evaluation"] == "written_out"
    (line,) = [each for each in why.lines if each.field == "attention in fp32"]
    assert line.value == "in chunks" and line.source == "measured"
    assert "1.0 s" in line.reason and "2 x 4 heads x 16 tokens x 48" in line.reason
    model = build(learning.model)
    assert model.h[0].attn.ways == learning.model.attention  # type: ignore[index, union-attr]


def test_nothing_is_timed_where_nothing_may_be_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_ASK_SECONDS", "0")
    monkeypatch.setattr(trials, "_asked", lambda *_: pytest.fail("it was asked"))
    learning, _ = planned(DEVICE)
    assert learning.model.attention == {}


@pytest.mark.parametrize(
    ("seconds", "way"),
    [
        ({"written_out": 1.0, "in_chunks": 3.0, "sdpa": 2.0}, "written_out"),
        ({"written_out": 1.0, "in_chunks": 3.0, "sdpa": 1.02}, "sdpa"),
        ({"written_out": 2.0, "in_chunks": 1.0, "sdpa": 2.0}, "in_chunks"),
    ],
)
def test_the_fastest_is_taken_and_the_leanest_of_equals(seconds: dict[str, float], way: str) -> None:
    assert fastest(seconds) == way


def test_many_samples_are_not_all_timed() -> None:
    whole = SHAPE.model_copy(update={"batch": 4096, "length": 512})
    assert whole.bounded().batch < 100
    assert SHAPE.bounded() == SHAPE
    assert direction(torch.float32, training=True) == "float32 training"
