"""States in the processor's memory: every optimizer takes the same steps to the bit, and goes on from the other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from references import Net, plan
from torch import Tensor, nn
from torch.optim import Optimizer

from thrifty.optim import OPTIMIZERS, build, evaluating, parameters_of
from thrifty.optim.on_host import OnHost

STEPS = 4
# fused, of two parts, with weights of its own; the rest are slow rows
QUICK = {"adamw", "muon", "schedule_free"}
EVERY = [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in OPTIMIZERS]


def gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def walk(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        gradients(model, step)
        for group in optimizer.param_groups:
            group["lr"] = 0.02 / (1 + step)
        optimizer.step()


def numbers(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items()}
    return [numbers(each) for each in value] if isinstance(value, list | tuple) else value


def pair(name: str) -> tuple[tuple[nn.Module, Optimizer], tuple[nn.Module, Optimizer]]:
    here, there = Net(), Net()
    return (here, build(here, plan(name))), (there, build(there, plan(name), offload=True))


def weights(model: nn.Module) -> Any:
    return numbers(model.state_dict())


@pytest.mark.parametrize("name", EVERY)
def test_steps_are_the_same_to_the_bit(name: str) -> None:
    (here, one), (there, other) = pair(name)
    before = weights(here)
    assert isinstance(other, OnHost) and parameters_of(other) == parameters_of(build(there, plan(name)))
    for model, optimizer in ((here, one), (there, other)):
        walk(model, optimizer, range(STEPS))
        with evaluating(optimizer):
            measured = weights(model)
        assert measured != before
    assert weights(here) == weights(there)
    assert numbers(one.state_dict()) == numbers(other.state_dict())


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("first", [0, 1], ids=["from the device", "from the host"])
def test_each_goes_on_from_what_the_other_saved(name: str, first: int) -> None:
    both = pair(name)
    saver, loader = both[first], both[1 - first]
    walk(*saver, range(STEPS))
    loader[0].load_state_dict(saver[0].state_dict())
    loader[1].load_state_dict(copy.deepcopy(saver[1].state_dict()))
    for each in (saver, loader):
        walk(*each, range(STEPS, 2 * STEPS))
    assert weights(saver[0]) == weights(loader[0])
    assert numbers(saver[1].state_dict()) == numbers(loader[1].state_dict())


@pytest.mark.parametrize("how", ["written to", "put in place"])
def test_weights_that_others_changed_are_stepped(how: str) -> None:
    (here, one), (there, other) = pair("adamw")
    for model, optimizer in ((here, one), (there, other)):
        walk(model, optimizer, range(1))
        with torch.no_grad():
            for parameter in model.parameters():
                if how == "written to":
                    parameter.mul_(0.5)
                else:
                    parameter.data = parameter.data * 0.5
        walk(model, optimizer, range(1, 3))
    assert weights(here) == weights(there)


def test_a_parameter_without_gradient_stands_still() -> None:
    _, (model, optimizer) = pair("adamw")
    walk(model, optimizer, range(1))
    first, *others = model.parameters()
    before = [each.tolist() for each in (first, *others)]
    gradients(model, 1)
    first.grad = None
    optimizer.step()
    after = [each.tolist() for each in (first, *others)]
    assert after[0] == before[0]
    assert all(one != other for one, other in zip(before[1:], after[1:], strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["adamw", "momentum", "muon", "schedule_free"])
def test_a_gpu_holds_no_states(name: str) -> None:
    def stepped(offload: bool) -> tuple[nn.Module, Optimizer, int]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 8)).cuda()
        optimizer = build(model, plan(name, learning_rate=1e-3), offload=offload)
        held = torch.cuda.memory_allocated()
        for _ in range(STEPS):
            with torch.random.fork_rng(["cuda"]):
                torch.manual_seed(1)
                for parameter in model.parameters():
                    parameter.grad = torch.randn_like(parameter)
            optimizer.step()
            for parameter in model.parameters():
                parameter.grad = None
        return model, optimizer, torch.cuda.memory_allocated() - held

    here, _, more = stepped(offload=False)
    there, optimizer, none = stepped(offload=True)
    states = [each for state in optimizer.state.values() for each in state.values() if isinstance(each, Tensor)]
    assert states and {each.device.type for each in states} == {"cpu"}
    assert none < more / 8 and more >= 4 * 512 * 512
    # Muon multiplies in bf16, which a processor rounds elsewhere: within a fiftieth of a rate at each step
    within = 0.02 * STEPS * 1e-3 if name == "muon" else 1e-6
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=within)
