"""Every schedule stays within its bounds, and is torch's where torch has one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from thrifty.errors import JobError
from thrifty.optim import SCHEDULES, Schedule
from thrifty.optim.schedules import OWN_RISE
from thrifty.spec import OptimPlan

TOTAL, PER_EPOCH, RATE = 40, 8, 0.3


def plan(
    schedule: str,
    *,
    warmup: int = 0,
    total: int = TOTAL,
    decay: float = 0.5,
    patience: int = 2,
    power: float = 2.0,
    cooldown: int = 0,
) -> OptimPlan:
    return OptimPlan(
        optimizer="sgd",
        schedule=schedule,
        learning_rate=RATE,
        momentum=0.0,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        warmup_steps=warmup,
        total_steps=total,
        steps_per_epoch=PER_EPOCH,
        decay=decay,
        plateau_patience=patience,
        clip=math.inf,
        power=power,
        cooldown_steps=cooldown,
    )


def rates(plan: OptimPlan) -> list[float]:
    schedule = Schedule(plan)
    return [schedule.rate(step) for step in range(plan.total_steps)]


TORCH: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "fixed": lambda o: lr_scheduler.ConstantLR(o, factor=1.0),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=TOTAL),
    "linear": lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.0, total_iters=TOTAL),
    "step": lambda o: lr_scheduler.MultiStepLR(o, milestones=[TOTAL // 2, TOTAL * 3 // 4], gamma=0.5),
    # torch steps this one at each epoch; taken at each step its factor is the root
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.5 ** (1 / PER_EPOCH)),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, total_iters=TOTAL, power=2.0),
}


@pytest.mark.parametrize("name", TORCH)
def test_the_rates_are_those_of_torch(name: str) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    reference = TORCH[name](optimizer)
    expected = []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(plan(name)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("total", [7, 40, 100])
@pytest.mark.parametrize("share", [0.3, 0.5])
def test_one_cycle_is_that_of_torch(total: int, share: float) -> None:
    rise = round(share * total)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=total, pct_start=rise / total, cycle_momentum=False
    )
    expected = [optimizer.param_groups[0]["lr"]]
    for _ in range(total - 1):
        optimizer.step()
        reference.step()
        expected.append(optimizer.param_groups[0]["lr"])
    assert rates(plan("one_cycle", warmup=rise, total=total)) == pytest.approx(expected, abs=1e-12)


def test_warm_up_stable_decay_is_torchs_three_in_a_row() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    reference = lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, start_factor=1 / 5, total_iters=4),
            lr_scheduler.ConstantLR(optimizer, factor=1.0),
            lr_scheduler.LambdaLR(optimizer, lambda step: 1 - math.sqrt(step / 10)),
        ],
        milestones=[5, TOTAL - 10],
    )
    expected = []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert rates(plan("wsd", warmup=5, cooldown=10)) == pytest.approx(expected, abs=1e-12)


def test_inverse_square_root_is_that_of_the_transformer() -> None:
    """Vaswani et al. 2017, equation 3, over its highest; the step after the warm-up is the first that falls."""
    warmup = 10
    own = rates(plan("inverse_sqrt", warmup=warmup, total=200))
    highest = warmup**-0.5
    expected = [RATE * min((t + 1) * warmup**-1.5, max(t, warmup) ** -0.5) / highest for t in range(200)]
    assert own == pytest.approx(expected)


@given(power=st.floats(0.2, 5), total=st.integers(2, 60), warmup=st.integers(0, 30))
def test_a_power_of_one_is_linear_and_higher_ones_lie_below(power: float, total: int, warmup: int) -> None:
    straight = rates(plan("linear", warmup=warmup, total=total))
    assert rates(plan("polynomial", warmup=warmup, total=total, power=1.0)) == pytest.approx(straight)
    bent = rates(plan("polynomial", warmup=warmup, total=total, power=power))
    pairs = list(zip(bent, straight, strict=True))
    assert all(one <= other + 1e-12 for one, other in pairs) if power >= 1 else all(a >= b - 1e-12 for a, b in pairs)


@given(total=st.integers(2, 100), cooldown=st.integers(0, 100), warmup=st.integers(0, 20))
def test_a_cooldown_starts_where_it_says(total: int, cooldown: int, warmup: int) -> None:
    cooldown = min(cooldown, total)
    own = rates(plan("wsd", total=total, cooldown=cooldown, warmup=warmup))
    flat = own[warmup : total - cooldown + 1]
    assert flat == pytest.approx([RATE] * len(flat))
    if cooldown > 1:
        assert 0 < own[-1] < RATE * 0.5 / (cooldown - 1)


def test_exponential_decays_by_its_factor_an_epoch() -> None:
    own = rates(plan("exponential", decay=0.5))
    assert [own[PER_EPOCH * epoch] / RATE for epoch in range(4)] == pytest.approx([1, 0.5, 0.25, 0.125])


@pytest.mark.parametrize("name", SCHEDULES)
@given(
    warmup=st.integers(0, 60),
    total=st.integers(1, 60),
    decay=st.floats(0.01, 0.99),
    cooldown=st.floats(0, 0.99),
    power=st.floats(0.1, 4),
)
def test_bounds(name: str, warmup: int, total: int, decay: float, cooldown: float, power: float) -> None:
    last = int(cooldown * max(total - warmup, 0))
    own = rates(plan(name, warmup=warmup, total=total, decay=decay, cooldown=last, power=power))
    assert all(0 < rate <= RATE * (1 + 1e-12) for rate in own)
    if total > warmup and name != "step":
        assert max(own) == pytest.approx(RATE)


@pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - OWN_RISE))
def test_warm_up_rises_in_a_straight_line(name: str) -> None:
    own = rates(plan(name, warmup=10))
    assert own[:10] == pytest.approx([RATE * (step + 1) / 10 for step in range(10)])
    assert own[10] == pytest.approx(RATE)
    after = own[10:]
    assert after == sorted(after, reverse=True)


@pytest.mark.parametrize("name", sorted(OWN_RISE))
def test_what_rises_by_itself_rises_to_the_last_step_of_the_warm_up(name: str) -> None:
    own = rates(plan(name, warmup=10))
    assert own[:10] == sorted(own[:10]) and own[9] == pytest.approx(RATE) and own[0] > 0
    assert own[9:] == sorted(own[9:], reverse=True)


@pytest.mark.parametrize("name", ["cosine", "linear", "polynomial", "one_cycle", "wsd"])
def test_the_last_step_is_small_and_not_wasted(name: str) -> None:
    last = rates(plan(name, warmup=10, total=1000, cooldown=500))[-1]
    assert 0 < last < 0.002 * RATE


def test_plateau_is_that_of_torch() -> None:
    values = [0.5, 0.6, 0.6, 0.55, 0.7, 0.7, 0.7, 0.7, 0.7, 0.8, 0.1, float("nan"), 0.1, 0.1]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    # torch counts the evaluations that it forgives, thrifty the one at which the rate falls
    reference = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=1, threshold=0.0)
    schedule = Schedule(plan("plateau", patience=2))
    for step, value in enumerate(values):
        schedule.evaluated(value, True)
        reference.step(value)
        assert schedule.rate(step) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert schedule.rate(0) < RATE / 4


def test_plateau_of_a_figure_that_should_fall() -> None:
    schedule = Schedule(plan("plateau", patience=2))
    for value, factor in [(2.0, 1), (1.0, 1), (1.5, 1), (1.0, 0.5), (0.9, 0.5), (0.95, 0.5), (0.95, 0.25)]:
        schedule.evaluated(value, False)
        assert schedule.rate(5) == pytest.approx(RATE * factor)


def test_plateau_goes_on_from_its_state() -> None:
    straight, first = Schedule(plan("plateau")), Schedule(plan("plateau"))
    values = [0.5, 0.4, 0.3, 0.2, 0.6, 0.1, 0.1]
    for value in values[:4]:
        straight.evaluated(value, True)
        first.evaluated(value, True)
    second = Schedule(plan("plateau"))
    second.load(json.loads(json.dumps(first.state())))
    for value in values[4:]:
        straight.evaluated(value, True)
        second.evaluated(value, True)
    assert second.rate(0) == straight.rate(0) < RATE / 2
    assert second.state() == straight.state()


@pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - {"plateau"}))
def test_only_plateau_listens(name: str) -> None:
    schedule = Schedule(plan(name, warmup=3))
    before = [schedule.rate(step) for step in range(TOTAL)]
    for _ in range(9):
        schedule.evaluated(0.0, True)
    assert [schedule.rate(step) for step in range(TOTAL)] == before


def test_an_unknown_name() -> None:
    with pytest.raises(JobError, match=r"unknown schedule 'cosin'\. Did you mean 'cosine'\?"):
        Schedule(plan("cosin"))
