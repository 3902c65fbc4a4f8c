"""Gradient release: every optimizer learns to the bit what it learns otherwise, and gradients are never all there."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from references import Net, plan
from torch import Tensor, nn
from torch.optim import AdamW

from thrifty.models.bert import BERT
from thrifty.models.gpt import GPT
from thrifty.models.mlp import MLP
from thrifty.models.precision import autocasting, with_precision
from thrifty.models.recompute import recomputing
from thrifty.models.resnet import ResNet
from thrifty.optim import OPTIMIZERS, build, evaluating, parameters_of
from thrifty.optim.release import Release, releasing
from thrifty.optim.rows import use_rows
from thrifty.train.precision import gradient_norm

STEPS = 3
# other bits are drawn in the backward pass' order: the planner refuses it
PRECISIONS = ("fp32", "bf16_compensated")
WORDS, LENGTH = 40, 12
# counts of a group, parts of two optimizers, and buckets stand for all in the quick ring
QUICK = {("schedule_free", "fp32"), ("muon", "fp32"), ("adamw", "bf16_compensated")}
EVERY = [
    pytest.param(*each, marks=[] if each in QUICK else [pytest.mark.slow])
    for each in itertools.product(OPTIMIZERS, PRECISIONS)
]


def small(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().train()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP(inputs=64, classes=3, widths=(32, 32, 32)),
    "resnet": lambda: ResNet(
        channels=1, classes=3, stem="cifar", block="basic", shortcut="pad", blocks=(1, 1), widths=(4, 8)
    ),
    "gpt, tied": lambda: GPT(vocabulary=WORDS, length=LENGTH, layers=3, width=16, heads=2),
    "gpt, computed again": lambda: recomputing(
        GPT(vocabulary=WORDS, length=LENGTH, layers=3, width=16, heads=2), "full"
    ),
    "gpt, products kept": lambda: recomputing(
        GPT(vocabulary=WORDS, length=LENGTH, layers=3, width=16, heads=2), "selective"
    ),
    "bert": lambda: BERT(vocabulary=WORDS, length=LENGTH, layers=2, width=16, heads=2, classes=3),
}


def loss_of(model: nn.Module, step: int) -> Tensor:
    """Images or tokens as the model takes them, others for each step."""
    generator = torch.Generator().manual_seed(step)
    if isinstance(model, GPT | BERT):
        x = torch.randint(1, WORDS, (4, LENGTH), generator=generator)
    else:
        x = torch.randn(8, 1, 8, 8, generator=generator)
    logits = model(x).flatten(0, -2)
    return nn.functional.cross_entropy(logits, torch.randint(0, 3, (len(logits),), generator=generator))


def keep(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], rate: float) -> float:
    """A step that keeps all gradients; returns their norm."""
    loss().backward()
    norm = gradient_norm([each.grad for each in parameters_of(optimizer) if each.grad is not None])
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return norm.item()


def equal(one: Any, other: Any) -> bool:
    """Whether nested states are the same, whatever order their keys are in."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


@pytest.mark.parametrize(("name", "precision"), EVERY)
def test_every_optimizer_learns_the_same_and_goes_on_with_or_without(name: str, precision: str) -> None:
    """Weights, states and norms to the bit; a state that one way left is gone on with in the other."""

    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = with_precision(Net(), precision)
        return model, build(model, plan(name), precision)

    (plain, kept), (released, own) = made(), made()
    for each in range(3):
        release = Release(own)
        for step in range(STEPS):

            def loss(model: nn.Module) -> Tensor:
                with autocasting("cpu", "fp32" if precision == "fp32" else "bf16"):
                    return model()

            rate = 0.02 / (1 + step)
            norm = keep(plain, kept, functools.partial(loss, plain), rate)
            assert release.backward(loss(released), 1.0, rate).item() == norm
            assert all(parameter.grad is None for parameter in released.parameters())
        release.remove()
        with evaluating(kept), evaluating(own):
            assert equal(plain.state_dict(), released.state_dict())
        assert equal(kept.state_dict(), own.state_dict())
        # from here on each goes on by what the other has left
        plain, (released, fresh) = released, made()
        released.load_state_dict(plain.state_dict())
        fresh.load_state_dict(copy.deepcopy(own.state_dict()))
        if each % 2:
            fresh.load_state_dict(copy.deepcopy(kept.state_dict()))
        kept, own = own, fresh


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each == "gpt, tied" else [pytest.mark.slow]) for each in MODELS]
)
def test_models_learn_the_same_with_a_part_of_the_gradients_at_a_time(name: str) -> None:
    plain, released = small(MODELS[name]), small(MODELS[name])
    kept, own = (build(each, plan("adamw", learning_rate=0.01)) for each in (plain, released))
    most = 0

    @contextmanager
    def look(_: object) -> Iterator[None]:
        nonlocal most
        most = max(most, sum(each.grad.nbytes for each in released.parameters() if each.grad is not None))
        yield

    release = Release(own, look)
    for step in range(3):
        torch.manual_seed(step)
        norm = keep(plain, kept, functools.partial(loss_of, plain, step), 0.01)
        torch.manual_seed(step)
        assert release.backward(loss_of(released, step), 1.0, 0.01).item() == norm
    assert equal(plain.state_dict(), released.state_dict())
    sizes = [each.nbytes for each in released.parameters()]
    assert most == max(sizes) < 0.8 * sum(sizes)


def test_of_an_embedding_the_rows_used_alone_are_stepped() -> None:
    plain, released = small(MODELS["bert"]), small(MODELS["bert"])
    kept, own = (build(each, plan("adamw", learning_rate=0.01)) for each in (plain, released))
    rows = [use_rows(each, optimizer, WORDS) for each, optimizer in ((plain, kept), (released, own))]
    with releasing(own, True) as release:
        assert release is not None
        for step in range(4):
            x = torch.randint(1, WORDS, (4, LENGTH), generator=torch.Generator().manual_seed(step))
            for used in (*rows[0], *rows[1]):
                used.take([x.numpy()])
            norm = keep(plain, kept, functools.partial(loss_of, plain, step), 0.01)
            assert release.backward(loss_of(released, step), 1.0, 0.01).item() == norm
    for used in (*rows[0], *rows[1]):
        used.release()
    assert equal(plain.state_dict(), released.state_dict())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_step_does_not_use_stays_and_what_is_frozen_is_left_alone(precision: str) -> None:
    """Of a bucket of weights in bf16, too, of which a part was used."""

    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.ways = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.still = nn.Parameter(torch.ones(4), requires_grad=precision != "fp32")

        def forward(self, step: int) -> Tensor:
            out: Tensor = self.ways[step % 2](torch.linspace(-1, 1, 4).to(self.still.dtype))
            return (out * self.still).square().sum().float()

    plain, released = (with_precision(Forked(), precision) for _ in range(2))
    kept, own = (build(each, plan("adamw"), precision) for each in (plain, released))
    release = Release(own)
    for step in (0, 0, 1, 0):
        with autocasting("cpu", "bf16"):
            norm = keep(plain, kept, functools.partial(plain, step), 0.1)
            assert release.backward(released(step), 1.0, 0.1).item() == norm
    assert equal(plain.state_dict(), released.state_dict())
    assert equal(kept.state_dict(), own.state_dict())


def test_a_pass_of_somebody_else_keeps_its_gradients_and_nothing_stays_behind() -> None:
    model = small(MODELS["mlp"])
    optimizer = AdamW(model.parameters())
    weight = next(model.parameters())
    with releasing(optimizer, True) as release:
        before = weight.detach().clone()
        loss_of(model, 0).backward()
        assert weight.grad is not None and torch.equal(before, weight)
        model.zero_grad()
        assert release is not None
        with pytest.raises(RuntimeError, match="does not require grad"):
            release.backward(torch.zeros(()), 1.0, 0.1)
        loss_of(model, 0).backward()
        assert weight.grad is not None, "an error in a pass leaves it as it was"
    model.zero_grad()
    with releasing(optimizer, False) as nothing:
        assert nothing is None
    assert not any(each._post_accumulate_grad_hooks for each in model.parameters())
