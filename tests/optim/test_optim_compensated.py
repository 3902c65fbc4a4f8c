"""Weights held in bf16: every optimizer moves them as it moves float32 ones, resumes bit by bit, and rounds fairly."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import Net, plan
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from thrifty.models.precision import autocasting, with_precision
from thrifty.optim import OPTIMIZERS, build, compensated, evaluating, parameters_of
from thrifty.optim.compensated import Bf16Weights
from thrifty.optim.groups import Parameters, sort_parameters
from thrifty.spec import BF16_HELD

# that move weights between 1 and 2 by some tenths in 200 steps, each by less than half of the last bit of bf16
RATE = 8e-4
RATES = {"adagrad": 3e-3, "momentum": 8e-5, "nesterov": 8e-5, "muon": 2e-3, "adafactor": 4e-4, "lamb": 4e-4}
LAST_BIT = 2.0**-7
# an optimizer of each make: fused, of this folder, of two parts, with weights of its own; the rest are slow rows
QUICK = {"adamw", "adamw_8bit", "muon", "schedule_free"}
ROWS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in OPTIMIZERS]


class Put(SGD):
    """An optimizer that puts given numbers in the place of its weights."""

    def __init__(self, parameters: Parameters, numbers: Tensor) -> None:
        super().__init__(parameters.by_kind["vector"], lr=0.0)
        self.numbers = numbers

    def step(self, closure: Callable[[], float] | None = None) -> None:
        with torch.no_grad():
            for each in parameters_of(self):
                each.copy_(self.numbers)


def putting(numbers: Tensor, *, keeping: bool, seed: int = 0) -> tuple[nn.Parameter, Bf16Weights]:
    weight = nn.Parameter(torch.ones(len(numbers), dtype=torch.bfloat16))
    optimizer = Bf16Weights(
        Parameters({"vector": [weight]}), lambda part: Put(part, numbers), compensated=keeping, seed=seed
    )
    return weight, optimizer


def matrices(dtype: torch.dtype) -> nn.Module:
    """A hidden matrix and a head, of weights between 1 and 2."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 8, bias=False))
    for parameter in model.parameters():
        parameter.data = (1 + torch.rand(parameter.shape, generator=generator)).bfloat16().to(dtype)
    return model


def walk(
    model: nn.Module, optimizer: Optimizer, count: int = 200, seed: int = 1, *, rounding: bool = False
) -> list[Tensor]:
    """Step along gradients that are positive and the same for all; returns how far that moved the weights.

    With ``rounding`` each step leaves the nearest numbers of bf16, as weights of bf16 alone would be.
    """
    before = [each.detach().float().clone() for each in model.parameters()]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for parameter in model.parameters():
            gradient = (0.5 + torch.rand(parameter.shape, generator=generator)).bfloat16()
            parameter.grad = gradient.to(parameter.dtype)
        optimizer.step()
        for parameter in model.parameters() if rounding else ():
            parameter.data = parameter.data.bfloat16().float()
    return [one.detach().float() - other for one, other in zip(model.parameters(), before, strict=True)]


def wide(optimizer: Bf16Weights) -> dict[int, Tensor]:
    """The float32 numbers that weights in bf16 stand for, by the place of the weight in memory."""
    found = {}
    for parameter in parameters_of(optimizer):
        low = optimizer.state[parameter]["compensation"].view(parameter.shape)
        bits = (parameter.detach().view(torch.int16).int() << 16) + low
        found[parameter.data_ptr()] = bits.view(torch.float32)
    return found


def slope(moved: list[Tensor], reference: list[Tensor]) -> float:
    """How far weights moved along the way that the reference took, as a share of it."""
    one, other = (torch.cat([each.flatten() for each in part]) for part in (moved, reference))
    return float(one @ other / (other @ other))


@pytest.mark.parametrize("name", ROWS)
def test_compensated_weights_are_those_of_float32_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensated, "BUCKET", 600)
    own = plan(name, learning_rate=RATES.get(name, RATE))
    reference, held = matrices(torch.float32), matrices(torch.bfloat16)
    optimizer = build(held, own, "bf16_compensated")
    assert isinstance(optimizer, Bf16Weights)
    assert len(optimizer.parts) == 2
    walk(reference, build(reference, own), 50)
    walk(held, optimizer, 50)
    found = wide(optimizer)
    for one, other in zip(held.parameters(), reference.parameters(), strict=True):
        assert torch.equal(found[one.data_ptr()], other.detach())
        assert (one.detach().float() - other.detach()).abs().max() <= LAST_BIT / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_move_as_far_as_those_of_float32_and_in_bf16_alone_they_do_not(name: str) -> None:
    own = plan(name, learning_rate=RATES.get(name, RATE), weight_decay=0.0)
    reference = matrices(torch.float32)
    moved = walk(reference, build(reference, own))
    assert max(float(each.abs().max()) for each in moved) > 8 * LAST_BIT
    for precision in BF16_HELD:
        held = matrices(torch.bfloat16)
        assert slope(walk(held, build(held, own, precision)), moved) == pytest.approx(1.0, abs=0.05), precision
    alone = matrices(torch.float32)
    assert slope(walk(alone, build(alone, own), rounding=True), moved) < 0.8


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("precision", BF16_HELD)
def test_it_resumes_bit_by_bit(name: str, precision: str) -> None:
    def some(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
        walk(model, optimizer, 4, seed)
        with evaluating(optimizer):
            pass
        walk(model, optimizer, 2, seed + 1)

    own, models = plan(name), [matrices(torch.bfloat16) for _ in range(3)]
    straight, broken, resumed = models
    optimizer = build(straight, own, precision, seed=3)
    some(straight, optimizer, 1)
    some(straight, optimizer, 5)
    optimizer = build(broken, own, precision, seed=3)
    some(broken, optimizer, 1)
    file = io.BytesIO()
    torch.save({"model": broken.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    resumed.load_state_dict(kept["model"])
    optimizer = build(resumed, own, precision, seed=4)
    optimizer.load_state_dict(kept["optimizer"])
    some(resumed, optimizer, 5)
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("precision", BF16_HELD)
def test_a_network_with_norms_learns(precision: str) -> None:
    model = with_precision(Net(), precision)
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert kinds["norm.weight"] == torch.float32
    assert kinds["conv.bias"] == kinds["embedding.weight"] == torch.bfloat16
    optimizer = build(model, plan("adamw", learning_rate=0.02), precision)
    losses = []
    for _ in range(60):
        with autocasting("cpu", precision):
            loss = model()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_are_those_of_float32_weights_and_all_are_shown(name: str) -> None:
    def sizes(model: nn.Module, precision: str) -> list[dict[str, tuple[torch.dtype, int]]]:
        optimizer = build(model, plan(name), precision)
        walk(model, optimizer, 1)
        states = [optimizer.state[each] for each in model.parameters()]
        return [{k: (v.dtype, v.numel()) for k, v in state.items() if isinstance(v, Tensor)} for state in states]

    expected = sizes(matrices(torch.float32), "fp32")
    held = sizes(matrices(torch.bfloat16), "bf16_compensated")
    for mine, theirs, parameter in zip(held, expected, matrices(torch.float32).parameters(), strict=True):
        assert mine.pop("compensation") == (torch.int16, parameter.numel())
        assert mine == theirs
    assert sizes(matrices(torch.bfloat16), "bf16_stochastic") == expected


@pytest.mark.parametrize("precision", BF16_HELD)
def test_the_rate_in_the_groups_is_the_rate_of_the_step(precision: str) -> None:
    model = matrices(torch.bfloat16)
    optimizer = build(model, plan("adamw"), precision)
    assert sort_parameters(model).by_kind.keys() == sort_parameters(matrices(torch.float32)).by_kind.keys()
    assert {id(each) for each in parameters_of(optimizer)} == {id(each) for each in model.parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    assert all(not each.any() for each in walk(model, optimizer, 3))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=20))
def test_nothing_is_lost_and_weights_are_the_nearest(numbers: list[float]) -> None:
    wanted = torch.tensor(numbers)
    weight, optimizer = putting(wanted, keeping=True)
    for _ in range(2):
        optimizer.step()
        assert torch.equal(wide(optimizer)[weight.data_ptr()].view(torch.int32), wanted.view(torch.int32))
        off = (weight.detach().double() - wanted.double()).abs()
        assert (off <= (wanted.bfloat16().double() - wanted.double()).abs()).all()


@pytest.mark.parametrize("number", [1.001, -1.001, 1.0039, 3.14159, -1e-3, 6e4, 1e-38])
def test_rounding_by_chance_is_right_in_the_mean(number: float) -> None:
    count = 40_000
    weight, optimizer = putting(torch.full((count,), number), keeping=False, seed=1)
    optimizer.step()
    found = weight.detach().double()
    below, above = found.min(), found.max()
    assert below < number < above
    assert set(found.unique().tolist()) == {float(below), float(above)}
    assert (weight.detach().view(torch.int16).int().unique().diff().abs() == 1).all()
    error = float(above - below) / 2 / math.sqrt(count)
    assert abs(float(found.mean()) - number) < 4 * error


def test_what_bf16_can_hold_is_never_rounded() -> None:
    numbers = torch.tensor([0.0, -0.0, 1.0, -1.5, 2.0**-126, 3.0e38, math.inf, -math.inf]).bfloat16().float()
    weight, optimizer = putting(numbers, keeping=False)
    for _ in range(20):
        optimizer.step()
        assert torch.equal(weight.detach().float(), numbers)


def test_the_seed_decides_how_it_rounds() -> None:
    def rounded(seed: int) -> Tensor:
        weight, optimizer = putting(torch.full((1_000,), 1.001), keeping=False, seed=seed)
        optimizer.step()
        return weight.detach().clone()

    assert torch.equal(rounded(1), rounded(1))
    assert not torch.equal(rounded(1), rounded(2))


@pytest.mark.parametrize("name", ["momentum", "adagrad", "adamw"])
def test_the_order_of_a_weight_in_memory_bears_on_nothing(name: str) -> None:
    def moved(memory_format: torch.memory_format) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
        model = model.to(memory_format=memory_format)
        with_precision(model, "bf16_compensated")
        optimizer = build(model, plan(name), "bf16_compensated")
        for _ in range(3):
            x = torch.arange(54.0).view(2, 3, 3, 3).contiguous(memory_format=memory_format) / 54
            model(x.bfloat16()).float().square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [each.detach().float() for each in model.parameters()]

    for one, other in zip(moved(torch.contiguous_format), moved(torch.channels_last), strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=2e-3)
