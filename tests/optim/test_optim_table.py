"""Every optimizer follows its paper's rule, trains, resumes bit by bit, can be traced, and holds what it should."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from references import RULES, Net, State, Valley, plan, steps, valley
from torch import Tensor, nn

from thrifty.cost import trace_step
from thrifty.cost.allocating import Allocating
from thrifty.cost.heap import _dry_step
from thrifty.cost.touched import mallinfo
from thrifty.errors import JobError
from thrifty.models.gpt import GPT
from thrifty.models.resnet import ResNet
from thrifty.optim import OPTIMIZERS, build, by_name, evaluating
from thrifty.optim.groups import RULES as KINDS
from thrifty.optim.groups import sort_parameters
from thrifty.optim.soap import LONGEST_SIDE

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
# at which the small network learns in 60 steps
RATES = {"adagrad": 0.1, "lion": 0.01, "adafactor": 0.1, "lamb": 0.02, "rmsprop": 0.01, "schedule_free": 0.05}
ADAPTIVE = {"adam", "adamw", "nadam", "muon", "soap", "adamw_8bit"}


def test_every_optimizer_has_its_reference() -> None:
    assert RULES.keys() == OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_follows_its_rule(name: str) -> None:
    own, model = plan(name, learning_rate=0.002), Valley()
    optimizer = build(model, own)
    parts = {"w": own, "v": own.model_copy(update={"weight_decay": 0.0})}
    at = {part: getattr(model, part).detach().clone() for part in parts}
    states: dict[str, State] = {part: {} for part in parts}
    for t in range(1, 51):
        for part, decaying in parts.items():
            point = at[part].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(valley(point), point)
            at[part] = RULES[name](at[part], gradient, states[part], decaying, t)
        steps(model, optimizer, 1)
        for part, expected in at.items():
            torch.testing.assert_close(getattr(model, part).detach(), expected, rtol=1e-9, atol=1e-11)
    assert all((at[part] - getattr(Valley(), part)).abs().max() > 0.01 for part in parts)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_trains(name: str) -> None:
    model = Net()
    rate = RATES.get(name, 0.02 if name in ADAPTIVE else 0.2)
    optimizer = build(model, plan(name, learning_rate=rate, weight_decay=1e-4))
    first = steps(model, optimizer, 60)[0]
    with evaluating(optimizer):
        assert model().item() < 0.2 * first


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_resumes_bit_by_bit(name: str) -> None:
    def twelve(model: Net, optimizer: torch.optim.Optimizer) -> None:
        steps(model, optimizer, 9)
        with evaluating(optimizer):
            model()
        steps(model, optimizer, 3)

    straight, broken, resumed = Net(), Net(), Net()
    optimizer = build(straight, plan(name))
    twelve(straight, optimizer)
    twelve(straight, optimizer)
    optimizer = build(broken, plan(name))
    twelve(broken, optimizer)
    file = io.BytesIO()
    torch.save({"model": broken.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    resumed.load_state_dict(kept["model"])
    optimizer = build(resumed, plan(name))
    optimizer.load_state_dict(kept["optimizer"])
    twelve(resumed, optimizer)
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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tied_weights_are_stepped_once_and_frozen_ones_never(name: str) -> None:
    torch.manual_seed(0)
    model = GPT(vocabulary=16, length=8, layers=2, width=8, heads=2)
    model.h[0].attn.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = build(model, plan(name))
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for _ in range(2):
        model(torch.arange(16).view(2, 8)).logsumexp(-1).sum().backward()
        optimizer.step()
    for key, value in model.named_parameters():
        assert torch.equal(value, before[key]) != value.requires_grad, key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_without_a_gradient_is_skipped(name: str) -> None:
    model = Net()
    optimizer = build(model, plan(name))
    skipped = {"conv.weight", "inner.weight", "norm.bias", "embedding.weight"}
    for count in range(3):
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        optimizer.zero_grad()
        model().backward()
        for key, value in model.named_parameters():
            if key in skipped and count == 1:
                value.grad = None
        optimizer.step()
        changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
        expected = set(before) - skipped if count == 1 else set(before)
        # a basis is made of the first gradient, which nothing but the decay follows
        assert changed == expected or (name == "soap" and count == 0)


def expected_bytes(name: str, model: nn.Module) -> float:
    """What docs/optimizers.md says that states take."""

    def of(shape: torch.Size) -> float:
        count, rows = shape.numel(), shape[0]
        columns, two = count // rows, 8 * count
        if name == "adafactor":
            return 4 * count if len(shape) < 2 else 4 * count // (shape[-1] * shape[-2]) * (shape[-1] + shape[-2])
        if name == "soap":
            return two + sum(8 * side**2 for side in (rows, columns) if side <= LONGEST_SIDE)
        if name == "adamw_8bit":
            return two if count < 4096 or count % 256 else 2 * count + 2 * 4 * count // 256
        one = {"momentum", "nesterov", "rmsprop", "adagrad", "lion", "muon"}
        return 0 if name in {"gd", "sgd"} else 4 * count if name in one else two

    return sum(
        of(each.shape) if KINDS[kind].hidden or name not in {"muon", "soap"} else 8 * each.numel()
        for kind, found in sort_parameters(model).by_kind.items()
        for each in found
    )


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 96), nn.LayerNorm(96), nn.Linear(96, 64), nn.Linear(64, 10))


def summed(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
    return model(batch["x"]).float().pow(2).sum(), 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_states_take_what_is_said(name: str) -> None:
    model = wide()
    optimizer = build(model, plan(name))
    summed(model, {"x": torch.ones(4, 64)})[0].backward()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    assert sum(value.nbytes for value in states if value.numel() > 1) == expected_bytes(name, model)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_step_can_be_traced(name: str, device: Any) -> None:
    shapes = {"x": ((4, 64), "float32")}
    found = trace_step(wide, summed, shapes, precision="fp32", optimizer=by_name(name), device=device)
    counts = 8 * found.parameter_tensors
    assert 0 <= found.optimizer_bytes - expected_bytes(name, wide()) <= counts
    assert any(op.phase == "optimizer" for op in found.ops)
    assert not any("eigh" in op.name for op in found.ops), "done once, when states are made"


@pytest.mark.slow
@pytest.mark.skipif(mallinfo() is None, reason="this C library does not tell what its heap holds")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_its_step_runs_dry(name: str) -> None:
    shapes = {"x": ((4, 1024), "float32")}
    with Allocating() as heap:
        heap.building = True
        model = nn.Sequential(nn.Linear(1024, 1024), nn.Linear(1024, 1024), nn.Linear(1024, 8))
        heap.building = False
        stepper = by_name(name)(model)
        for _ in range(3):
            _dry_step(heap, model, summed, shapes, stepper, "fp32", 1, torch.contiguous_format)
    weights = sum(each.nbytes for each in model.parameters())
    # small ones may lie in pages that are resident already, and ends of large ones do
    assert heap.peak_bytes >= 2 * weights + expected_bytes(name, model) - (1 << 20)


def test_weights_without_memory_have_an_optimizer_too() -> None:
    with torch.device("meta"):
        assert build(nn.Linear(3, 3), plan("adamw"))


def test_an_unknown_name() -> None:
    with pytest.raises(JobError, match=r"unknown optimizer 'adamv'\. Did you mean 'adam"):
        build(Net(), plan("adamv"))
    with pytest.raises(JobError, match=r"unknown optimizer 'moun'\. Did you mean 'muon'\?"):
        by_name("moun")


def test_every_optimizer_steps_a_residual_network_in_rows_of_channels() -> None:
    for name in OPTIMIZERS:
        torch.manual_seed(0)
        model = ResNet(
            stem="cifar", block="basic", shortcut="pad", blocks=(1, 1, 1), widths=(4, 8, 16), channels=1, classes=3
        ).to(memory_format=torch.channels_last)
        optimizer = build(model, plan(name, learning_rate=1e-3))
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(4, 1, 8, 8).contiguous(memory_format=torch.channels_last)).logsumexp(1).sum().backward()
            optimizer.step()
        assert all(bool(each.isfinite().all()) for each in model.parameters()), name
        assert math.isfinite(sum(float(each.detach().sum()) for each in model.parameters()))
