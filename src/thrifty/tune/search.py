"""The search: Optuna proposes, a function tries, a budget ends it; what a trial means is not known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna

from thrifty.errors import BudgetError, DivergedError
from thrifty.files import writing
from thrifty.spec.plain import Plain
from thrifty.spec.tuning import Settings, Trial
from thrifty.spec.units import format_seconds

STARTUP_TRIALS = 4


class TrialPruned(Exception):  # noqa: N818 - a signal, not an error
    """Raised by `Report` when a trial is so far behind that going on is a waste."""


# A trial says how it does after each validation: (step, value). Raises `TrialPruned`.
Report = Callable[[int, float], None]
Try = Callable[[Settings, Report], float]


class Choice(Plain):
    """What a setting may be: a range (on a log scale), or some values; and what to try first."""

    first: float | int | str
    low: float = 0.0
    high: float = 0.0
    values: tuple[float | int | str, ...] = ()


class Search(Plain):
    """How a search went; ``best`` is the number of the best trial."""

    trials: tuple[Trial, ...]
    best: int
    reason: str


def search(
    space: Mapping[str, Choice],
    attempt: Try,
    *,
    database: Path,
    name: str,
    higher_is_better: bool,
    trials: int,
    seconds_left: Callable[[], float],
    seed: int,
) -> Search:
    """Try settings until the budget or the number of trials is used up; the first trial is the space's own start.

    Args:
        space: what each setting may be.
        attempt: runs one trial for real and returns the validation figure it reached.
        database: SQLite file of the studies.
        name: of this study in it; a search that was cut off goes on from it.
        higher_is_better: direction of the figure.
        trials: trials at most, earlier ones included.
        seconds_left: of the budget; a trial that would not fit (by the median so far) is not begun.
        seed: of the sampler.

    Raises:
        BudgetError: not one trial ended within the budget.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with writing(database, "the study"):
        database.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{database}",
        load_if_exists=True,
        direction="maximize" if higher_is_better else "minimize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1),
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    if not study.trials:
        study.enqueue_trial({name: choice.first for name, choice in space.items()})

    while not (reason := _reason_to_stop(study, trials, seconds_left())):
        _one(study, space, attempt, seconds_left)
    if not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        raise BudgetError(f"not one trial ended: {reason}", mend="Raise --budget, or lower train.epochs.")
    return Search(trials=tuple(_done(t) for t in study.trials), best=study.best_trial.number, reason=reason)


def _one(study: optuna.Study, space: Mapping[str, Choice], attempt: Try, seconds_left: Callable[[], float]) -> None:
    trial = study.ask()
    settings = {name: _suggest(trial, name, choice) for name, choice in space.items()}

    def report(step: int, value: float) -> None:
        trial.report(value, step)
        if trial.should_prune():
            raise TrialPruned

    try:
        study.tell(trial, attempt(settings, report))
    except TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except DivergedError:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    except BudgetError:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if seconds_left() > 0:  # it is not that the search's own budget ran out before the trial's first step
            raise


def _suggest(trial: optuna.Trial, name: str, choice: Choice) -> Any:
    if choice.values:
        return trial.suggest_categorical(name, choice.values)
    return trial.suggest_float(name, choice.low, choice.high, log=True)


def _reason_to_stop(study: optuna.Study, trials: int, left_s: float) -> str:
    ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    if len(ended) >= trials:
        return f"all {trials} trials done"
    took = sorted(t.duration.total_seconds() for t in ended if t.duration is not None)
    typical = took[len(took) // 2] if took else 0.0
    if left_s <= typical:
        return f"budget: {format_seconds(max(left_s, 0.0))} left, a trial takes about {format_seconds(typical)}"
    return ""


def _done(trial: optuna.trial.FrozenTrial) -> Trial:
    status = {optuna.trial.TrialState.COMPLETE: "done", optuna.trial.TrialState.PRUNED: "pruned"}.get(
        trial.state, "failed"
    )
    reached = (
        trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step or 0, float("nan"))
    )
    return Trial.model_validate(
        {
            "number": trial.number,
            "settings": trial.params,
            "status": status,
            "value": reached,
            "seconds": trial.duration.total_seconds() if trial.duration else 0.0,
        }
    )
