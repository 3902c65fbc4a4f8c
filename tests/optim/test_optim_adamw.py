"""Our AdamW is torch's, bit for bit: weights, states, what hooks see, and what is saved and loaded."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import Net, plan
from torch import nn

from thrifty.optim import build
from thrifty.optim.adamw import AdamW

SETTINGS: dict[str, Any] = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-6}
# for each parameter, the steps in which it has a gradient
Course = list[list[bool]]
courses = st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5)


def groups(count: int, dtype: torch.dtype) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(number + 1, 3, dtype=dtype)) for number in range(count)]
    return [{"params": made[::2], "weight_decay": 0.1}, {"params": made[1::2], "weight_decay": 0.0}]


def step(optimizer: torch.optim.Optimizer, course: Course, at: int) -> None:
    """A step whose rate and gradients follow from its number."""
    torch.manual_seed(at)
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    for group in optimizer.param_groups:
        group["lr"] = 0.01 * (at + 1)
    for parameter, steps in zip(parameters, course, strict=True):
        gradient = torch.randn_like(parameter)
        parameter.grad = gradient if steps[at] else None
    optimizer.step()


def same(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> bool:
    """Whether weights and states are equal, bit for bit."""
    pairs = [
        (a, b)
        for mine, theirs in zip(one.param_groups, other.param_groups, strict=True)
        for a, b in zip(mine["params"], theirs["params"], strict=True)
    ]
    states = [(one.state.get(a, {}), other.state.get(b, {})) for a, b in pairs]
    assert all(mine.keys() == theirs.keys() for mine, theirs in states)
    return all(torch.equal(a, b) for a, b in pairs) and all(
        torch.equal(mine[name], theirs[name]) for mine, theirs in states for name in mine
    )


@settings(deadline=None, max_examples=12)
@given(courses, st.sampled_from([torch.float32, torch.float64]))
def test_it_steps_as_torchs_does(course: Course, dtype: torch.dtype) -> None:
    ours = AdamW(groups(len(course), dtype), **SETTINGS)
    theirs = torch.optim.AdamW(groups(len(course), dtype), **SETTINGS, fused=True)
    for at in range(4):
        step(ours, course, at)
        step(theirs, course, at)
        assert same(ours, theirs)


@pytest.mark.parametrize("written_by", [AdamW, torch.optim.AdamW])
def test_what_one_saves_the_other_goes_on_from(written_by: type[torch.optim.AdamW]) -> None:
    course = [[True] * 4, [True, False, True, True], [True] * 4]
    before = written_by(groups(3, torch.float32), **SETTINGS, **({} if written_by is AdamW else {"fused": True}))
    step(before, course, 0)
    step(before, course, 1)
    after = []
    for kind in (AdamW, torch.optim.AdamW):
        taken = kind(copy.deepcopy(before.param_groups), lr=1.0, **({} if kind is AdamW else {"fused": True}))
        taken.load_state_dict(copy.deepcopy(before.state_dict()))
        step(taken, course, 2)
        after.append(taken)
    assert same(*after) and not same(before, after[0])


def test_hooks_are_called_around_each_step() -> None:
    weight = nn.Parameter(torch.zeros(()))
    optimizer, seen = AdamW([weight], lr=1.0, weight_decay=0.0), []
    before = optimizer.register_step_pre_hook(lambda stepping, *_: seen.append((stepping, weight.item())))
    optimizer.register_step_post_hook(lambda stepping, *_: seen.append((stepping, weight.item())))
    weight.grad = torch.ones(())
    optimizer.step()
    assert seen == [(optimizer, 0.0), (optimizer, pytest.approx(-1.0))]
    before.remove()
    optimizer.step()
    assert [value for _, value in seen[2:]] == [pytest.approx(-2.0)]


def test_a_closure_is_asked_for_the_loss_with_gradients() -> None:
    weight = nn.Parameter(torch.ones(()))

    def loss() -> float:
        value = weight * 3
        value.backward()
        return value.item()

    assert AdamW([weight], lr=0.5, weight_decay=0.0).step(loss) == 3.0
    assert weight.item() == pytest.approx(0.5)


def test_parameters_that_are_not_alike_are_torchs_to_step() -> None:
    model = Net()
    assert type(build(model, plan("adamw"))) is AdamW
    model.norm.double()
    optimizer = build(model, plan("adamw"))
    assert type(optimizer) is torch.optim.AdamW
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
