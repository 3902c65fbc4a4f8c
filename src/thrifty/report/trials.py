"""The trials of a search for readers: a line as each begins or stops, and the table of all with its bill."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

import thrifty.report.rows as rows
from thrifty.report.tables import Columns
from thrifty.spec import Spent
from thrifty.spec.events import Tried
from thrifty.spec.tuning import Setting, Settings, Trial
from thrifty.spec.units import format_joules, format_seconds, format_usd


def tried_line(event: Tried) -> str:
    """Say what became of a trial, in a line.

    >>> tried_line(Tried(Trial(number=2, settings={"batch": 32}, status="running", value=math.nan), "accuracy"))
    'trial 3 begins: batch 32'
    """
    trial = event.trial
    settings = told_settings(trial.settings)
    name = f"trial {trial.number + 1}"
    if trial.status == "running":
        price = f", priced {format_seconds(trial.priced_seconds)} for the whole" if trial.priced_seconds else ""
        return f"{name} goes on" if trial.seconds else f"{name} begins{price}: {settings}"
    if math.isnan(trial.value):
        return f"{name}: {trial.status}, {trial.says or 'before a first validation'}; {settings}"
    figure = f"{rows.metric_name(event.metric)} {rows.metric_text(event.metric, trial.value)}"
    after = f"after {trial.epochs:.3g} epochs" if trial.epochs != 1 else "after an epoch"
    why = f": {trial.says}" if trial.status in {"pruned", "failed"} and trial.says else ""
    return f"{name}: {figure} {after}, {trial.status}{why}{', the best so far' if event.best else ''}"


def tuning_view(metric: str, trials: Sequence[Trial], best: int, spent: Spent) -> RenderableType:
    """List the trials of a search, the best one marked, with its bill below.

    Settings that no trial changed are left out; ``whole`` is what all of a trial's epochs were priced.

    Args:
        metric: validation figure they are judged by.
        trials: in the order they were begun.
        best: place of the best.
        spent: on the search.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.settings))
    names = [name for name in names if len({str(trial.settings.get(name)) for trial in trials}) > 1] or names
    lines = [
        [
            "▸" if at == best else "",
            str(trial.number + 1),
            rows.metric_text(metric, trial.value) if not math.isnan(trial.value) else "",
            trial.status,
            f"{trial.epochs:.3g}" if trial.epochs else "",
            format_seconds(trial.seconds) if trial.seconds else "",
            format_seconds(trial.priced_seconds) if trial.priced_seconds else "",
            told_settings({name: value for name, value in trial.settings.items() if name in names}),
        ]
        for at, trial in enumerate(trials)
    ]
    headers = ["", ">trial", f">{rows.metric_name(metric)}", "", ">epochs", ">took", ">whole", "~settings"]
    done = sum(trial.share for trial in trials)
    bill = (
        f"{len(trials):,} trials for the price of {done:.1f}: {format_seconds(spent.wall_s)}, "
        f"{format_seconds(spent.cpu_s)} of the processors, {format_joules(spent.joules)}, {format_usd(spent.usd)}"
    )
    return Group(Columns(headers, lines), Text(bill, style="dim"))


def told_settings(settings: Settings) -> str:
    """Write settings in a line.

    >>> told_settings({"learning_rate": 0.00123456, "batch": 32})
    'learning rate 0.00123, batch 32'
    """
    return ", ".join(f"{name.replace('_', ' ')} {_setting(value)}" for name, value in settings.items())


def _setting(value: Setting) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
