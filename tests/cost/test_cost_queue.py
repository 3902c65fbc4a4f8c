"""A step on a GPU: host and device side by side, what each operator asks of the host, and copies of a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost import Op
from thrifty.cost.queue import Host, queue_seconds
from thrifty.hardware.overheads import BACKWARD, MODULE, PARAMETER, START, TO_DEVICE, WATCHED
from thrifty.spec.device import KernelPoint

PAIRS = st.lists(st.tuples(st.floats(0, 1e-3), st.floats(0, 1e-3)), min_size=1, max_size=50)


def point(name: str, seconds: float = 0.0, *, host_s: float = 0.0, shapes: str = "", **more: Any) -> KernelPoint:
    values = {"dtype": "", "layouts": "", "tensors": 1, "moved_bytes": 0, "cold_s": seconds, "spread": 0.0}
    return KernelPoint(**{**values, "name": name, "warm_s": seconds, "host_s": host_s, "shapes": shapes, **more})


def asks(name: str, phase: Any = "forward", **more: Any) -> Op:
    values = {"kind": "other", "flops": 0, "bytes_read": 0, "bytes_written": 0, "dtype": "float32", "shapes": "2->2"}
    return Op(**{**values, "name": name, "phase": phase, **more})


@given(PAIRS)
def test_a_queue_takes_at_least_the_slower_side_and_at_most_both(pairs: list[tuple[float, float]]) -> None:
    end, waits = queue_seconds(pairs)
    host, busy = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
    assert max(host, busy) <= end * (1 + 1e-9) + 1e-15
    assert end <= host + busy + 1e-12
    assert waits == pytest.approx(end - busy, abs=1e-12)


@given(PAIRS, st.floats(1.0, 3.0))
def test_a_slower_host_never_makes_a_step_faster(pairs: list[tuple[float, float]], slow: float) -> None:
    slowed = [(slow * host, busy) for host, busy in pairs]
    assert queue_seconds(slowed)[0] >= queue_seconds(pairs)[0] - 1e-12


def test_large_operators_hide_the_host_and_small_ones_do_not() -> None:
    assert queue_seconds([(1e-5, 1e-3)] * 100)[0] == pytest.approx(0.1, rel=1e-3)
    assert queue_seconds([(1e-5, 1e-6)] * 100)[0] == pytest.approx(1e-3, rel=1e-2)


def test_an_operator_takes_of_the_host_what_its_like_took() -> None:
    host = Host(
        [
            point("mm", host_s=8e-6, shapes="1"),
            point("mm", host_s=12e-6, shapes="2"),
            point("add", host_s=4e-6, shapes="1"),
        ]
    )
    assert host.ask(asks("mm"), None, "fp32") == pytest.approx(10e-6)
    assert host.ask(asks("mm"), 9e-6, "fp32") == pytest.approx(9e-6)
    assert host.ask(asks("unheard_of"), None, "fp32") == pytest.approx(7e-6)


def test_modules_backward_and_checkpointing_cost_the_host_more() -> None:
    host = Host([
        point(MODULE, 16e-6, dtype="float32"), point(MODULE, 20e-6, dtype="bfloat16"),
        point(BACKWARD, 5e-6, dtype="float32"), point(f"{WATCHED} hooks", 30e-6), point(f"{WATCHED} selective", 90e-6),
    ])  # fmt: skip
    plain = host.ask(asks("mm"), 1e-6, "fp32")
    assert host.ask(asks("mm", entered=2), 1e-6, "fp32") == pytest.approx(plain + 32e-6)
    assert host.ask(asks("mm", entered=2), 1e-6, "bf16") == pytest.approx(plain + 40e-6)
    assert host.ask(asks("mm", "backward"), 1e-6, "fp32") == pytest.approx(plain + 5e-6)
    assert host.ask(asks("mm", "recompute", entered=1), 1e-6, "fp32") == pytest.approx(plain + 16e-6)
    watched = replace(asks("mm"), watched="selective")
    assert host.ask(watched, 1e-6, "fp32") > host.ask(replace(watched, watched="hooks"), 1e-6, "fp32") > plain


def test_phases_begin_and_an_update_goes_by_its_parameters() -> None:
    host = Host([
        point(f"{BACKWARD} {START}", 5e-4, dtype="float32"), point(PARAMETER, 1e-5, dtype="float32"),
        point(f"{PARAMETER} {START}", 1e-4, dtype="float32"),
    ])  # fmt: skip
    assert host.begin("forward", "fp32", 100) == 0.0
    assert host.begin("backward", "fp32", 100) == pytest.approx(5e-4)
    assert host.begin("update", "fp32", 100) == pytest.approx(1e-4 + 100e-5)


def test_a_batch_is_copied_at_the_rate_of_copies() -> None:
    host = Host([point(TO_DEVICE, 40e-6, moved_bytes=1 << 18), point(TO_DEVICE, 8e-3, moved_bytes=1 << 26)])
    assert host.copy(0) == pytest.approx(2 * (40e-6 - (8e-3 - 40e-6) / ((1 << 26) - (1 << 18)) * (1 << 18)))
    assert host.copy(1 << 26) == pytest.approx(8e-3, rel=0.01)
    assert Host([]).copy(1 << 26) == 0.0
    assert Host([point(TO_DEVICE, 8e-3, moved_bytes=1 << 26)]).copy(1 << 25) == pytest.approx(4e-3)
