"""Convolutions are timed once per machine and shape, and the plan computes by columns what is faster so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import made_devices
from thrifty.models import build
from thrifty.models.convolution import PRODUCTS, Convolution
from thrifty.planner import declared_dataset, trials
from thrifty.planner.convolution import Shape, convolutions_of, faster, time_convolutions, with_convolution
from thrifty.planner.learning import Learning, decide
from thrifty.planner.rules import Reasons
from thrifty.spec import Device, parse_job
from thrifty.spec.plain import Plain

SHAPE = Shape(
    batch=2, channels=8, outputs=4, size=(4, 4), window=(3, 3), stride=(1, 1), padding=(1, 1), dtype="float32"
)
DEVICE = made_devices.device()
JOB = parse_job(
    {
        "name": "a",
        "data": {"kind": "image", "images": 1_000, "classes": 10, "size": 16},
        "model": "resnet8",
        "train": {"batch": 16, "steps": 5},
    }
)


def planned(device: Device, precision: str | None = None) -> tuple[Learning, Reasons]:
    why = Reasons([])
    dataset = declared_dataset(JOB.data)  # type: ignore[arg-type]
    return with_convolution(decide(JOB, dataset, why), dataset, device, why, precision), why


def says(columns_s: float) -> Any:
    """What another process would say where columns take so long, and torch's own a second."""

    def answer(shapes: Sequence[Plain], *_: object) -> dict[Plain, dict[str, float]]:
        ways = {"torch": 1.0, "columns": columns_s}
        return {
            each: {f"{product} {way}": took for product in PRODUCTS for way, took in ways.items()} for each in shapes
        }

    return answer


@pytest.mark.slow
@pytest.mark.alone
def test_each_product_is_timed_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = made_devices.device()
    found: dict[Shape, dict[str, float]] = {}
    for _ in range(2):
        found = time_convolutions([SHAPE], device)
        if found:
            break
    else:
        pytest.skip("other processes had the cores each time")
    assert set(found[SHAPE]) == {f"{product} {way}" for product in PRODUCTS for way in ("torch", "columns")}
    assert all(0 < each < 1 for each in found[SHAPE].values())
    monkeypatch.setattr(trials, "_asked", lambda *_: pytest.fail("it was measured twice"))
    assert time_convolutions([SHAPE], device) == found


def test_the_plan_computes_by_columns_what_is_faster(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_asked", says(0.5))
    learning, why = planned(DEVICE, "fp32")
    (line,) = [each for each in why.lines if each.field == "convolutions in fp32"]
    # of four convolutions whose results are of 8 x 8 pixels or fewer, three products each
    assert line.value == "12 products by columns" and line.source == "measured"
    assert line.reason == "6.0 s a step, 12.0 s by torch's own"
    assert set(learning.model.convolution.values()) == {PRODUCTS}
    model = build(learning.model)
    assert any(isinstance(each, Convolution) for each in model.modules())


@pytest.mark.parametrize("columns_s", [0.95, 2.0])
def test_columns_must_be_worth_it(cache: Path, monkeypatch: pytest.MonkeyPatch, columns_s: float) -> None:
    monkeypatch.setattr(trials, "_asked", says(columns_s))
    learning, why = planned(DEVICE)
    assert learning.model.convolution == {}
    assert not [line for line in why.lines if line.field.startswith("convolutions")]


def test_nothing_is_timed_where_nothing_may_be_asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTY_ASK_SECONDS", "0")
    monkeypatch.setattr(trials, "_asked", lambda *_: pytest.fail("it was asked"))
    assert planned(DEVICE)[0].model.convolution == {}


def test_which_convolutions_a_model_has() -> None:
    learning, _ = planned(made_devices.device())
    counts = convolutions_of(learning.model, (3, 16, 16), 16)
    sizes = {(each.channels, each.outputs, each.size, each.stride): count for each, count in counts.items()}
    # images of 16 x 16 pixels are left to torch
    assert sizes == {
        (16, 32, (16, 16), (2, 2)): 1,
        (32, 32, (8, 8), (1, 1)): 1,
        (32, 64, (8, 8), (2, 2)): 1,
        (64, 64, (4, 4), (1, 1)): 1,
    }
    assert {(each.batch, each.dtype) for each in counts} == {(16, "float32")}
    assert convolutions_of(learning.model, (4, 16, 16), 16) == {}, "what does not run is not counted"


@pytest.mark.parametrize(("weight_s", "products"), [((1.0, 0.89), ("forward", "weight")), ((1.0, 0.91), ("forward",))])
def test_faster(weight_s: tuple[float, float], products: tuple[str, ...]) -> None:
    torch_s, columns_s = weight_s
    seconds = {
        "forward torch": 2.0, "forward columns": 1.0, "input torch": 1.0, "input columns": 3.0,
        "weight torch": torch_s, "weight columns": columns_s,
    }  # fmt: skip
    assert faster(seconds) == products


def test_shapes() -> None:
    assert SHAPE.pixels == 16
    assert SHAPE.key == "8x4x4 to 4 by 3x3, stride 1x1, padding 1x1, float32"
    assert SHAPE.bounded() == SHAPE
    large = SHAPE.model_copy(update={"batch": 1 << 20, "channels": 512, "outputs": 512})
    assert 1 < large.bounded().batch < 1 << 10
