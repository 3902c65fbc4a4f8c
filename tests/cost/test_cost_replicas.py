"""Traced models on clusters: the same step as the closed form, ZeRO, accumulation and errors."""

from __future__ import annotations

import pytest
import torch

from thrifty.cost import Trace, trace_step
from thrifty.cost.choose import calibration_for
from thrifty.cost.cluster import step_breakdown
from thrifty.cost.replicas import replicas_cost
from thrifty.errors import JobError
from thrifty.hardware.cluster import find_cluster
from thrifty.models.gpt import GPT
from thrifty.models.losses import cross_entropy
from thrifty.spec import Layout, TransformerShape

NODE = find_cluster("a100-80g:8")


@pytest.fixture(scope="module")
def gpt() -> Trace:
    return trace_step(
        lambda: GPT(vocabulary=8192, length=1024, layers=2, width=768, heads=12),
        cross_entropy,
        {"x": ((8, 1024), "int64"), "y": ((8, 1024), "int64")},
        precision="bf16",
        optimizer=lambda model: torch.optim.AdamW(model.parameters()),
    )


def test_matrix_products_as_in_closed_form(gpt: Trace) -> None:
    shape = TransformerShape(
        layers=2, hidden=768, heads=12, kv_heads=12, head_dim=64, ffn=3072, vocabulary=8192, length=1024
    )
    traced = replicas_cost(gpt, NODE, data=8).breakdown
    closed = step_breakdown(shape, Layout(data=8, micro_batch=8), NODE, calibration_for(NODE.device))
    assert traced.matmul == pytest.approx(closed.matmul, rel=0.15)


def test_zero_shares_the_update_and_talks_more(gpt: Trace) -> None:
    steps = [replicas_cost(gpt, NODE, data=8, zero=zero, accumulation=4).breakdown for zero in range(4)]
    assert steps[1].optimizer == pytest.approx(steps[0].optimizer / 8)
    assert steps[3].data > steps[2].data > steps[1].data >= steps[0].data > 0
    assert replicas_cost(gpt, NODE, data=1).breakdown.data == 0


def test_accumulation_repeats_all_but_the_update(gpt: Trace) -> None:
    one, four = (replicas_cost(gpt, NODE, data=8, accumulation=n).breakdown for n in (1, 4))
    assert four.matmul == pytest.approx(4 * one.matmul)
    assert four.optimizer == one.optimizer
    assert four.data == one.data


def test_interval_is_wide_and_says_why(gpt: Trace) -> None:
    step = replicas_cost(gpt, NODE, data=8)
    assert step.seconds.high / step.seconds.value > 1.3
    assert "operator by operator" in step.seconds.method


@pytest.mark.parametrize(
    ("more", "says"), [({"data": 16}, "data 16 is more than"), ({"data": 1, "zero": 4}, "unknown zero 4")]
)
def test_bad_requests(gpt: Trace, more: dict[str, int], says: str) -> None:
    with pytest.raises(JobError, match=says):
        replicas_cost(gpt, NODE, **more)
