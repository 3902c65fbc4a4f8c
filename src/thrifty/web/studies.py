"""What searches for hyper-parameters left in the folder of runs, read from the tables that Optuna keeps in SQLite.

The tables are those of Optuna's RDB storage (https://optuna.readthedocs.io, `optuna.storages.RDBStorage`), read as they
are: a page that looks needs no search, and must not change a study that is under way.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from thrifty.report.words import Pair, joined, pair

# the file of a search's own study
STUDY = "study.sqlite"
_MOST_FILES = 200
# a file that is larger holds more than a page can show
_MOST_TRIALS = 2000
_STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
# of which the best may be
_WINS = {"done", "paused"}
_INFINITE = {"INF_POS": math.inf, "INF_NEG": -math.inf, "NAN": math.nan}


class Trial(NamedTuple):
    """One trial.

    Attributes:
        number: in its study, from 0.
        settings: that it tried.
        status: how it ended, or that it waits or is at work.
        value: that it reached; ``nan`` for nothing.
        seconds, usd: that it took; 0 where nobody says so.
        share: of its steps that it has taken; 1 where nobody says so.
        says: why it ended.
    """

    number: int
    settings: dict[str, str]
    status: str
    value: float
    seconds: float
    usd: float = 0.0
    share: float = 1.0
    says: str = ""


class Study(NamedTuple):
    """One study.

    Attributes:
        folder: name of the folder that it lies in.
        name: its own.
        rises: more is better.
        trials: in their order.
    """

    folder: str
    name: str
    rises: bool
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The best that ended, or waits to go on; None where there is none."""
        ended = [each for each in self.trials if each.status in _WINS and math.isfinite(each.value)]
        return max(ended, key=lambda each: each.value if self.rises else -each.value, default=None)


class Unread(NamedTuple):
    """A file that looks like a study's and cannot be read."""

    path: str
    reason: str


def find_studies(runs: Path) -> tuple[list[Study], list[Unread]]:
    """Read the studies in a folder of runs, one folder deep; the newest file first."""
    studies: list[Study] = []
    unread: list[Unread] = []
    for path in _files(runs):
        try:
            studies += _read(path)
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            unread.append(Unread(str(path.relative_to(runs)), " ".join(str(error).split())[:200]))
    return studies, unread


def study_in(folder: Path) -> Study | None:
    """Read the newest study of a search's folder; None where none lies there, or it cannot be read."""
    path = folder / STUDY
    if not path.is_file():
        return None
    try:
        return next(_read(path), None)
    except (sqlite3.Error, ValueError, TypeError, KeyError):
        return None


def counted(trials: Sequence[Trial]) -> Pair:
    """Count trials by what became of them.

    >>> counted([Trial(number, {}, status, 0.5, 1.0) for number, status in enumerate(["done", "done", "pruned"])]).en
    '2 done, 1 pruned'
    """
    by_status = Counter(each.status for each in trials)
    return joined(
        [pair("{count} {status}", count=f"{count:,}", status=each) for each, count in by_status.most_common()]
    )


def _files(runs: Path) -> list[Path]:
    if not runs.is_dir():
        return []
    found = [path for form in ("*.sqlite", "*.db") for path in (*runs.glob(form), *runs.glob(f"*/{form}"))]
    files = [path for path in found if path.is_file() and not path.name.startswith("ledger.")]
    return sorted(files, key=lambda path: -path.stat().st_mtime)[:_MOST_FILES]


def _read(path: Path) -> Iterator[Study]:
    # read only: a study that another process writes stays as it is
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=2)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "studies" not in tables or "trials" not in tables:
            return
        directions = dict(database.execute("SELECT study_id, direction FROM study_directions WHERE objective = 0"))
        for study, name in database.execute(
            "SELECT study_id, study_name FROM studies ORDER BY study_id DESC"
        ).fetchall():
            trials = tuple(_trials(database, study))
            yield Study(path.parent.name, str(name), directions.get(study) == "MAXIMIZE", trials)


def _trials(database: sqlite3.Connection, study: int) -> Iterator[Trial]:
    of_study = "trial_id IN (SELECT trial_id FROM trials WHERE study_id = ?)"
    values: dict[int, float] = {}
    # of one that was pruned what it had reached
    asked = (
        f"SELECT trial_id, intermediate_value, intermediate_value_type FROM trial_intermediate_values WHERE {of_study} "
        "ORDER BY step",
        f"SELECT trial_id, value, value_type FROM trial_values WHERE {of_study} AND objective = 0",
    )
    for query in asked:
        for trial, value, kind in database.execute(query, (study,)):
            values[trial] = _INFINITE.get(kind, float(value) if value is not None else math.nan)
    settings: dict[int, dict[str, str]] = {}
    query = f"SELECT trial_id, param_name, param_value, distribution_json FROM trial_params WHERE {of_study}"
    for trial, name, value, distribution in database.execute(query, (study,)):
        settings.setdefault(trial, {})[str(name)] = _setting(value, distribution)
    own = _said(database, of_study, study)
    query = (
        "SELECT trial_id, number, state, (julianday(datetime_complete) - julianday(datetime_start)) * 86400 "
        "FROM trials WHERE study_id = ? ORDER BY number LIMIT ?"
    )
    for trial, number, state, seconds in database.execute(query, (study, _MOST_TRIALS)):
        value, said = values.get(trial, math.nan), own.get(trial, {})
        status = str(said.get("status") or _STATES.get(str(state), str(state).lower()))
        spent = said.get("spent", {"seconds": float(seconds or 0.0)})
        yield Trial(
            int(number),
            settings.get(trial, {}),
            status,
            value,
            float(spent.get("seconds", 0.0)),
            float(spent.get("usd", 0.0)),
            float(said["step"]) / float(said["total"]) if said.get("total") else 1.0,
            str(said.get("says", "")),
        )


def _said(database: sqlite3.Connection, of_study: str, study: int) -> dict[int, dict[str, Any]]:
    """What `thrifty tune` keeps of its trials beside what Optuna keeps; nothing of another's study."""
    query = f"SELECT trial_id, value_json FROM trial_user_attributes WHERE key = 'thrifty' AND {of_study}"
    return {trial: dict(json.loads(text)) for trial, text in database.execute(query, (study,))}


def _setting(value: Any, distribution: str) -> str:
    """A setting as it was meant: of choices the number of one is kept."""
    said = json.loads(distribution)
    choices = said.get("attributes", {}).get("choices")
    if choices:
        return str(choices[int(value)])
    return f"{value:.4g}" if "Float" in str(said.get("name")) or not float(value).is_integer() else f"{value:.0f}"
