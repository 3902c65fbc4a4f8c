"""Proposals: within the space, the same for a seed, better than chance once much is known; a grid in full."""

from __future__ import annotations

import math
from importlib.util import find_spec

import pytest

from thrifty.spec.tuning import Choice, Settings
from thrifty.tune.proposals import SAMPLERS, Known, grid, propose

SPACE = {
    "learning_rate": Choice(low=1e-4, high=1.0),
    "batch": Choice(low=8, high=64),
    "schedule": Choice(values=("cosine", "linear")),
    "warmup": Choice(low=0.0, high=0.3),
}
NEEDS = {"gp": pytest.mark.skipif(find_spec("scipy") is None, reason="the Gaussian process needs scipy")}


def goodness(settings: Settings) -> float:
    """Best at a rate of 1e-2, in batches of 8."""
    return -((math.log10(float(settings["learning_rate"])) + 2) ** 2) - float(settings["batch"]) / 64


@pytest.mark.parametrize("sampler", [pytest.param(name, marks=NEEDS.get(name, ())) for name in sorted(SAMPLERS)])
def test_what_is_proposed_lies_in_the_space_and_goes_by_the_seed(sampler: str) -> None:
    known = [Known({"learning_rate": 1e-3, "batch": 16, "schedule": "linear", "warmup": 0.1}, 0.5)]
    first = propose(SPACE, known, sampler, seed=3)
    assert first is not None and first == propose(SPACE, known, sampler, seed=3)
    assert first != propose(SPACE, known, sampler, seed=4)
    assert 1e-4 <= float(first["learning_rate"]) <= 1.0 and 0.0 <= float(first["warmup"]) <= 0.3
    assert isinstance(first["batch"], int) and 8 <= first["batch"] <= 64
    assert first["schedule"] in {"cosine", "linear"}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=NEEDS["gp"])])
def test_a_sampler_finds_its_way(sampler: str) -> None:
    known: list[Known] = []
    for seed in range(30):
        settings = propose(SPACE, known, sampler, seed=seed)
        assert settings is not None
        known.append(Known(settings, goodness(settings)))
    goods = [each.goodness for each in known if each.goodness is not None]
    assert sum(goods[20:]) / 10 > sum(goods[:6]) / 6


def test_one_that_is_at_work_and_one_that_failed_are_borne() -> None:
    known = [
        Known({"learning_rate": 1e-3, "batch": 16, "schedule": "linear", "warmup": 0.1}, None),
        *(Known({"learning_rate": 1e-2, "batch": 8, "schedule": "cosine", "warmup": 0.0}, -1.0) for _ in range(8)),
    ]
    assert propose(SPACE, known, "tpe", seed=1) is not None


def test_a_grid_is_gone_through_once() -> None:
    space = {"schedule": Choice(values=("cosine", "linear")), "learning_rate": Choice(low=1e-4, high=1.0)}
    points, known = grid(space), []
    while (settings := propose(space, known, "grid", seed=0)) is not None:
        known.append(Known(settings, None))
    assert [each.settings for each in known] == points
    rates = sorted({float(point["learning_rate"]) for point in points})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    whole = grid({"batch": Choice(low=1, high=3)})
    assert whole == [{"batch": 1}, {"batch": 2}, {"batch": 3}]
