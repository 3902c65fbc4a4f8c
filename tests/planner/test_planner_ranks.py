"""Plans over several devices: a rank is planned on its share, and the cost is that of all of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from test_planner import decide, device, images, job, reason

from thrifty.data import Store
from thrifty.errors import JobError
from thrifty.spec import Plan

# each plan traces a real model
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_dry_run")]

__all__ = ["images"]


def spread(images: Store, **pins: Any) -> Plan:
    return decide(images, job(model="resnet20", train={"batch": 50, "steps": 40}, plan={"precision": "fp32", **pins}))


@pytest.fixture(scope="module")
def known() -> dict[str, Plan]:
    """What was planned once."""
    return {}


@pytest.mark.parametrize("zero", [0, 3])
def test_each_device_has_its_share_and_the_cost_is_of_all(zero: int, known: dict[str, Plan], images: Store) -> None:
    if not known:
        known["one"] = spread(images)
    one, two = known["one"], spread(images, data=2, zero=zero)
    assert (one.devices, one.zero) == (1, 0)
    assert (two.devices, two.zero, two.threads) == (2, zero, 1)
    assert two.batch.size == one.batch.size == 50
    assert two.batch.micro <= 25
    assert two.batch.accumulation == math.ceil(50 / (two.batch.micro * 2))
    assert two.stop.steps == one.stop.steps
    assert two.optim == one.optim
    # the arithmetic is the same, in as long a time on a processor that is shared but for messages, most where weights
    # are shared out; two processes hold more
    assert two.cost.flops.value == pytest.approx(one.cost.flops.value, rel=0.1)
    assert 0.5 < two.cost.seconds.value / one.cost.seconds.value < (4 if zero else 1.5)
    assert two.cost.peak_bytes.value > one.cost.peak_bytes.value
    assert two.cost.peak_bytes.method.startswith("2 ranks of ")
    said = reason(two, "devices")
    assert "predicted for each rank" in said
    waits = two.cost.seconds.method.rpartition(", and ")[2]
    assert waits.partition(" a step")[0] in said
    assert "without messages between ranks, " in said and "; on one device " in said
    at_once = f"the {2 * two.batch.micro} samples that 2 ranks compute at once"
    assert f"batch norm takes its statistics over {at_once}" in reason(two, "zero")
    (line,) = [line for line in two.why if line.field == "devices"]
    assert line.doubt == "not predicted: the seconds in which ranks start"


def test_what_cannot_be_learned_so_is_refused(images: Store) -> None:
    refused = [
        ({"data": 2, "zero": 3}, {"optimizer": "muon"}, "muon steps over whole matrices"),
        ({"data": 2, "zero": 3}, {"freeze": ["*.bias"]}, "a part of this model stays as it is"),
        ({"data": 2}, {"batch": 1}, "a step of 1 samples cannot be shared by 2 devices"),
    ]
    for pins, train, said in refused:
        with pytest.raises(JobError, match=said):
            decide(images, job(model="mlp-small", train=train, plan=pins), device=device())
