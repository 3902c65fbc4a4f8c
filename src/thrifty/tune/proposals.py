"""Settings to try next: Optuna's samplers over what is known of each configuration, or a grid.

A sampler sees one finished trial for each configuration, with the value that it is expected to end at: how far a trial
has come is the ladder's matter. What is proposed goes by the seed and by what is known alone.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from thrifty.errors import MissingExtraError
from thrifty.spec.tuning import WHOLE, Choice, Setting, Settings, Space

# configurations drawn at random before a sampler has enough to go by
STARTUP = 6
# values of a range on a grid
GRID_POINTS = 5


@dataclass(frozen=True)
class Known:
    """A configuration that was tried, or is being tried.

    Attributes:
        settings: what it is.
        goodness: what it is expected to end at, more is better; None while nothing is known.
    """

    settings: Settings
    goodness: float | None


def distribution(name: str, choice: Choice) -> optuna.distributions.BaseDistribution:
    """What a setting may be, as Optuna says it."""
    if choice.values:
        return optuna.distributions.CategoricalDistribution(choice.values)
    low, high = choice.bounds
    if name in WHOLE:
        return optuna.distributions.IntDistribution(math.ceil(low), math.floor(high), log=choice.by_factors)
    return optuna.distributions.FloatDistribution(low, high, log=choice.by_factors)


def distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """The whole space, as Optuna says it."""
    return {name: distribution(name, choice) for name, choice in space.items()}


SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
}


def check_sampler(name: str) -> None:
    """Check that what a sampler needs is installed.

    Raises:
        MissingExtraError: the Gaussian process needs scipy.
    """
    if name == "gp" and importlib.util.find_spec("scipy") is None:
        raise MissingExtraError("the sampler 'gp'", package="scipy", extra="gp")


def propose(space: Space, known: Sequence[Known], sampler: str, *, seed: int) -> Settings | None:
    """Return settings to try next; None where a grid has no more.

    Args:
        space: what each setting may be.
        known: all configurations that were tried.
        sampler: of `SAMPLERS`, or ``grid``.
        seed: another one proposes something else.
    """
    if sampler == "grid":
        return _next_of_grid(space, known)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=SAMPLERS[sampler](seed))
    ranges = distributions(space)
    for each in known:
        finished = each.goodness is not None
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if finished else optuna.trial.TrialState.RUNNING,
                value=each.goodness,
                params=dict(each.settings),
                distributions=ranges,
            )
        )
    with warnings.catch_warnings():
        # samplers say on what they fall back; what comes of it is seen in the trials
        warnings.simplefilter("ignore")
        return {name: _plain(value) for name, value in study.ask(ranges).params.items()}


def grid(space: Space) -> list[Settings]:
    """Every configuration of a grid: all values, five of each range, their ends among them."""
    axes = [[(name, value) for value in _points(name, choice)] for name, choice in space.items()]
    return [dict(point) for point in itertools.product(*axes)]


def _next_of_grid(space: Space, known: Sequence[Known]) -> Settings | None:
    tried = [each.settings for each in known]
    return next((point for point in grid(space) if point not in tried), None)


def _points(name: str, choice: Choice) -> list[Setting]:
    if choice.values:
        return list(choice.values)
    low, high = choice.bounds
    shares = [at / (GRID_POINTS - 1) for at in range(GRID_POINTS)]
    points: list[float] = [
        low * (high / low) ** share if choice.by_factors else low + (high - low) * share for share in shares
    ]
    points[-1] = high
    if name in WHOLE:
        return list(dict.fromkeys(min(max(round(point), math.ceil(low)), math.floor(high)) for point in points))
    return list(points)


def _plain(value: Any) -> Setting:
    """A setting as Python has it, whatever numpy made of it."""
    return value.item() if hasattr(value, "item") else value
