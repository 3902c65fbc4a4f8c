"""Studies as Optuna leaves them: read without it, and not changed; other files are passed over."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from made_site import Shown

from thrifty.web.studies import find_studies

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert(1)</script>"


def make_study(folder: Path, *, name: str = "key", direction: str = "maximize") -> optuna.Study:
    """A study of three settings: two that ended, one pruned, one failed, one under way."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True)
    study = optuna.create_study(study_name=name, storage=f"sqlite:///{folder / 'study.sqlite'}", direction=direction)
    for number, value in enumerate((0.91, 0.95, None, math.nan, None)):
        trial = study.ask()
        trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        trial.suggest_categorical("schedule", ("cosine", HOSTILE, "fixed"))
        trial.suggest_int("batch", 8, 64)
        if number == 2:
            trial.report(0.4, 1)
            trial.report(0.6, 2)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif number == 3:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif value is not None:
            study.tell(trial, value)
    return study


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_study_is_read_as_it_was_made(tmp_path: Path, direction: str) -> None:
    made = make_study(tmp_path / "digits-tune", direction=direction)
    before = hashlib.sha256((tmp_path / "digits-tune" / "study.sqlite").read_bytes()).hexdigest()
    (study,), unread = find_studies(tmp_path)
    assert unread == []
    assert (study.folder, study.name, study.rises) == ("digits-tune", "key", direction == "maximize")
    assert [each.status for each in study.trials] == ["done", "done", "pruned", "failed", "running"]
    assert [each.value for each in study.trials[:3]] == [0.91, 0.95, 0.6]
    assert study.best is not None and study.best.number == made.best_trial.number
    for ours, theirs in zip(study.trials, made.trials, strict=True):
        assert ours.settings["schedule"] == theirs.params["schedule"]
        assert int(ours.settings["batch"]) == theirs.params["batch"]
        assert float(ours.settings["learning_rate"]) == pytest.approx(theirs.params["learning_rate"], rel=1e-3)
    assert hashlib.sha256((tmp_path / "digits-tune" / "study.sqlite").read_bytes()).hexdigest() == before


def test_what_tune_keeps_of_its_trials_is_told(tmp_path: Path) -> None:
    study = make_study(tmp_path / "digits-tune")
    said = {
        "status": "paused",
        "spent": {"seconds": 8.5, "usd": 0.01},
        "step": 27,
        "total": 81,
        "says": "27 steps done",
    }
    study.set_user_attr("other", 1)
    trial = study.ask()
    trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    trial.set_user_attr("thrifty", said)
    trial.report(0.97, 27)
    (found,), unread = find_studies(tmp_path)
    assert unread == [] and found.best is not None and found.best.number == trial.number
    assert found.best[2:] == ("paused", 0.97, 8.5, 0.01, pytest.approx(1 / 3), "27 steps done")


def test_studies_stand_on_their_page(site: Shown, runs: Path) -> None:
    make_study(runs / "digits-tune", name=HOSTILE)
    html = site.client.get("/studies").text
    assert "5 trials: 2 done, 1 pruned, 1 failed, 1 running." in html
    assert HOSTILE not in html and "&lt;script&gt;alert(1)" in html
    assert '"id": "study-0"' in html


def test_without_a_study_the_page_says_how_to_make_one(site: Shown) -> None:
    html = site.client.get("/studies").text
    assert "There is no study" in html and "thrifty tune job.yaml --budget 10min" in html


def test_what_is_no_study_is_passed_over_and_what_is_broken_is_told(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "study.sqlite").write_bytes(b"no database at all" * 100)
    with closing(sqlite3.connect(tmp_path / "b" / "other.db")) as database, database:
        database.execute("CREATE TABLE songs (name TEXT)")
    with closing(sqlite3.connect(tmp_path / "c" / "study.sqlite")) as database, database:
        for table in ("studies", "trials", "trial_params", "trial_values"):
            database.execute(f"CREATE TABLE {table} (study_id INTEGER)")
    (tmp_path / "ledger.sqlite").write_bytes(b"the ledger is none")
    studies, unread = find_studies(tmp_path)
    assert studies == []
    assert sorted(each.path for each in unread) == ["a/study.sqlite", "c/study.sqlite"]
    assert find_studies(tmp_path / "no such folder") == ([], [])
