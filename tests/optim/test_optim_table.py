"""Every optimizer follows its paper's update rule, trains, resumes bit by bit, and spares biases from decay."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from thrifty.errors import JobError
from thrifty.models.gpt import GPT
from thrifty.optim import OPTIMIZERS, build
from thrifty.spec import OptimPlan

State = dict[str, Tensor]
Rule = Callable[[Tensor, Tensor, State, OptimPlan, int], Tensor]


def plan(optimizer: str, **changes: float | int | str) -> OptimPlan:
    values = {
        "optimizer": optimizer,
        "schedule": "fixed",
        "learning_rate": 0.02,
        "momentum": 0.9 if optimizer in {"momentum", "nesterov"} else 0.0,
        "betas": (0.9, 0.99),
        "eps": 1e-8,
        "weight_decay": 0.1,
        "warmup_steps": 0,
        "total_steps": 100,
        "steps_per_epoch": 10,
        "decay": 0.5,
        "plateau_patience": 2,
        "clip": math.inf,
    }
    return OptimPlan.model_validate({**values, **changes})


def sgd(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    return w - plan.learning_rate * (g + plan.weight_decay * w)


def momentum(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """v <- mu v + g; w <- w - rate v (Polyak 1964, the rate outside the sum; the first v is g)."""
    state["v"] = plan.momentum * state.get("v", torch.zeros_like(w)) + g + plan.weight_decay * w
    return w - plan.learning_rate * state["v"]


def nesterov(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Bengio et al. 2013, "Advances in optimizing recurrent networks", equation 7, the rate outside the sum."""
    g = g + plan.weight_decay * w
    state["v"] = plan.momentum * state.get("v", torch.zeros_like(w)) + g
    return w - plan.learning_rate * (g + plan.momentum * state["v"])


def adam(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Kingma and Ba 2015, algorithm 1, on the gradient plus an L2 penalty's."""
    return w - plan.learning_rate * _adam_direction(g + plan.weight_decay * w, state, plan, t)


def adamw(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Loshchilov and Hutter 2019, algorithm 2, the decay times the rate."""
    return w - plan.learning_rate * (_adam_direction(g, state, plan, t) + plan.weight_decay * w)


def _adam_direction(g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    (b1, b2), zero = plan.betas, torch.zeros_like(g)
    state["m"] = b1 * state.get("m", zero) + (1 - b1) * g
    state["s"] = b2 * state.get("s", zero) + (1 - b2) * g**2
    return (state["m"] / (1 - b1**t)) / ((state["s"] / (1 - b2**t)).sqrt() + plan.eps)


RULES: dict[str, Rule] = {
    "gd": sgd, "sgd": sgd, "momentum": momentum, "nesterov": nesterov, "adam": adam, "adamw": adamw,
}  # fmt: skip


class Valley(nn.Module):
    """Rosenbrock's valley for every pair of a matrix of parameters; lowest, 0, where all are 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[-1.2, 1.0], [0.5, -0.5], [2.0, 1.5]], dtype=torch.float64))

    def forward(self) -> Tensor:
        x, y = self.w.unbind(1)
        return ((1 - x) ** 2 + 5 * (y - x**2) ** 2).sum()


class Net(nn.Module):
    """A small network with each kind of parameter: convolution, norm, bias, embedding, matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.fc = nn.Linear(8, 7)

    def forward(self) -> Tensor:
        x_BT = torch.arange(21).view(3, 7) % 7
        hidden = self.conv(self.embedding(x_BT).transpose(1, 2)).transpose(1, 2)
        return nn.functional.cross_entropy(self.fc(self.norm(hidden)).flatten(0, 1), (x_BT.flatten() * 3 + 1) % 7)


def steps(model: Valley | Net, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        loss = model()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def test_every_optimizer_has_its_reference() -> None:
    assert RULES.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_follows_its_rule(name: str) -> None:
    own, model = plan(name, learning_rate=0.002), Valley()
    optimizer = build(model, own)
    w, state = model.w.detach().clone(), {}
    for t in range(1, 51):
        point = w.clone().requires_grad_()
        x, y = point.unbind(1)
        ((1 - x) ** 2 + 5 * (y - x**2) ** 2).sum().backward()
        assert point.grad is not None
        w = RULES[name](w, point.grad, state, own, t)
        steps(model, optimizer, 1)
        torch.testing.assert_close(model.w.detach(), w, rtol=1e-10, atol=1e-12)
    assert (w - Valley().w).abs().max() > 0.01


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains(name: str) -> None:
    model = Net()
    rate = 0.02 if name.startswith("adam") else 0.2
    losses = steps(model, build(model, plan(name, learning_rate=rate, weight_decay=1e-4)), 150)
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_resumes_bit_by_bit(name: str) -> None:
    straight = Net()
    steps(straight, build(straight, plan(name)), 20)
    broken = Net()
    optimizer = build(broken, plan(name))
    steps(broken, optimizer, 9)
    weights, state = copy.deepcopy(broken.state_dict()), copy.deepcopy(optimizer.state_dict())
    resumed = Net()
    resumed.load_state_dict(weights)
    optimizer = build(resumed, plan(name))
    optimizer.load_state_dict(state)
    steps(resumed, optimizer, 11)
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_matrices_decay_and_nothing_else(name: str) -> None:
    model = Net()
    optimizer = build(model, plan(name, learning_rate=0.1, weight_decay=0.5))
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, parameter in model.named_parameters():
        assert bool((parameter < 1).all()) == (parameter.dim() >= 2), key
        assert bool((parameter == 1).all()) == (parameter.dim() < 2), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_in_the_groups_is_the_rate_of_the_step(name: str) -> None:
    """The loop writes it there before each step."""
    model = Valley()
    optimizer, before = build(model, plan(name)), model.w.detach().clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    steps(model, optimizer, 3)
    assert torch.equal(model.w, before)


def test_a_tied_weight_is_stepped_once() -> None:
    model = GPT(vocabulary=16, length=8, layers=1, width=8, heads=2)
    optimizer = build(model, plan("adamw"))
    own = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(own) == sorted(id(p) for p in model.parameters())


def test_what_is_frozen_is_left_out() -> None:
    model = Net()
    model.conv.requires_grad_(False)
    own = {id(p) for group in build(model, plan("sgd")).param_groups for p in group["params"]}
    assert id(model.conv.weight) not in own and id(model.fc.weight) in own


def test_weights_without_memory_have_an_optimizer_too() -> None:
    with torch.device("meta"):
        assert build(nn.Linear(3, 3), plan("adamw"))


def test_an_unknown_name() -> None:
    with pytest.raises(JobError, match=r"unknown optimizer 'adamv'\. Did you mean 'adam"):
        build(Net(), plan("adamv"))
