"""Dropout by bits drops at the rate, keeps the mean, follows torch's generator, and is torch's in evaluation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from thrifty.cost import trace_step
from thrifty.errors import JobError
from thrifty.models.dropout import LEVELS, by_bits, use_dropout
from thrifty.models.losses import LOSSES


@given(
    rate=st.floats(0.001, 0.999),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64]),
)
@settings(max_examples=40, deadline=None)
def test_an_element_is_dropped_or_scaled_and_so_is_its_gradient(
    rate: float, shape: list[int], dtype: torch.dtype
) -> None:
    x = torch.randn(shape, dtype=torch.float64).add(3).to(dtype).requires_grad_()
    out = by_bits(x, rate)
    pull = torch.randn(shape, dtype=torch.float64).add(3).to(dtype)
    (gradient,) = torch.autograd.grad(out, x, pull)
    scale, kept = LEVELS / (LEVELS - round(rate * LEVELS)), out != 0
    assert torch.equal(out, torch.where(kept, x * scale, torch.zeros_like(x)))
    assert torch.equal(gradient, torch.where(kept, pull * scale, torch.zeros_like(pull)))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_the_rate_is_kept(rate: float) -> None:
    count = 400_000
    out = by_bits(torch.ones(count, dtype=torch.float64), rate)
    dropped = float((out == 0).double().mean())
    assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / count) + 0.5 / LEVELS
    neighbours = float(((out[1:] == 0) & (out[:-1] == 0)).double().mean())
    assert abs(neighbours - rate**2) < 5 * rate / math.sqrt(count) + 1 / LEVELS, "elements of a word are independent"


def test_the_generator_decides() -> None:
    x = torch.ones(1001)
    state = torch.get_rng_state()
    first, second = by_bits(x, 0.3), by_bits(x, 0.3)
    torch.set_rng_state(state)
    assert torch.equal(by_bits(x, 0.3), first)
    assert not torch.equal(first, second)


def test_what_is_computed_again_drops_the_same() -> None:
    net = use_dropout(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)), "bits").train()
    x, found = torch.randn(64, 8, requires_grad=True), []
    for run in (net, lambda x: checkpoint(net, x, use_reentrant=False)):
        torch.manual_seed(0)
        found.append(torch.autograd.grad(run(x).square().sum(), x)[0])
    assert torch.equal(*found)


def test_layers_are_changed_and_put_back() -> None:
    class Own(nn.Dropout):
        """Drops in its own way."""

    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5, inplace=True), nn.Dropout(0.0), nn.Dropout(1.0), Own(0.5))
    names = [name for name, _ in net.named_modules()]
    use_dropout(net, "bits")
    assert ["forward" in vars(layer) for layer in net] == [True, False, False, False, False]
    x = torch.randn(50)
    assert torch.equal(net[0].eval()(x), x)
    assert [name for name, _ in use_dropout(net, "sampled").named_modules()] == names
    assert not any("forward" in vars(layer) for layer in net)
    with pytest.raises(JobError, match=r"unknown way of dropout 'bit'.*'bits'"):
        use_dropout(net, "bit")


def test_a_step_of_it_is_traced() -> None:
    def built() -> nn.Module:
        return use_dropout(nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.1), nn.Linear(6, 2)), "bits")

    step = trace_step(
        built,
        LOSSES["classify"],
        {"x": ((5, 6), "float32"), "y": ((5,), "int64")},
        precision="bf16",
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    )
    assert [op.kind for op in step.ops].count("random") == 1
    assert step.activation_bytes > 0
