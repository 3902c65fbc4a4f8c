"""A ``trainer_state.json`` is read strictly: what is no such file is told where, and what it says is drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import make_beside, make_evaluations, make_plan, make_steps

from thrifty.errors import DataError
from thrifty.report import read_trainer_state
from thrifty.report.beside import beside_text, with_beside
from thrifty.report.figures import MOST_POINTS, curves

# as transformers 5 writes it
STATE: dict[str, Any] = {
    "best_metric": None, "epoch": 2.0, "eval_steps": 500, "global_step": 40, "is_hyper_param_search": False,
    "log_history": [
        {"epoch": 1.0, "grad_norm": 1.7, "learning_rate": 4e-5, "loss": 0.69, "step": 20},
        {"epoch": 1.0, "eval_accuracy": 0.81, "eval_loss": 0.44, "eval_runtime": 1.5,
         "eval_samples_per_second": 580.0, "eval_steps_per_second": 73.0, "step": 20},
        {"epoch": 2.0, "grad_norm": float("nan"), "learning_rate": 0.0, "loss": 0.31, "note": "mine", "step": 40},
        {"epoch": 2.0, "eval_accuracy": 0.84, "eval_loss": 0.40, "eval_runtime": 1.4, "step": 40},
        {"epoch": 2.0, "step": 40, "total_flos": 1.2e15, "train_loss": 0.5, "train_runtime": 33.5},
    ],
    "max_steps": 40, "num_train_epochs": 2, "total_flos": 1.2e15, "train_batch_size": 8, "trial_name": None,
}  # fmt: skip


def written(folder: Path, state: Any) -> Path:
    path = folder / "sst2" / "checkpoint-40" / "trainer_state.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(state if isinstance(state, str) else json.dumps(state), encoding="utf-8")
    return path


def test_what_the_trainer_logged(tmp_path: Path) -> None:
    found = read_trainer_state(written(tmp_path, STATE))
    assert (found.name, found.steps, found.batch, found.seconds) == ("sst2", 40, 8, 33.5)
    assert found.loss == ((20.0, 0.69), (40.0, 0.31)) and found.flops == 1.2e15
    assert found.validation == {"accuracy": ((20.0, 0.81), (40.0, 0.84)), "loss": ((20.0, 0.44), (40.0, 0.4))}
    assert beside_text(found).en == (
        "Dashed, beside it: sst2, by transformers.Trainer: 40 steps of 8 samples on each device in 33.5 s. "
        "Steps are each trainer's own."
    )


def test_a_step_that_was_logged_twice_counts_once_and_many_are_thinned(tmp_path: Path) -> None:
    lines = [{"step": step % 6_000, "loss": 1 / (1 + step)} for step in range(9_000)]
    found = read_trainer_state(written(tmp_path, {"log_history": lines, "global_step": 6_000}))
    steps = [step for step, _ in found.loss]
    assert len(steps) <= MOST_POINTS and steps == sorted(set(steps))
    assert found.loss[0] == (0.0, 1 / 6001)


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("{", "is no JSON"),
        ("[" * 200_000, "is no JSON"),
        ([], "holds a list"),
        ({}, "has no log_history"),
        ({"log_history": {}}, "has no log_history"),
        ({"log_history": [3]}, "line 1 of log_history .* holds a int"),
        ({"log_history": [{"loss": 1.0}]}, "line 1 .* has no step: None"),
        ({"log_history": [{"loss": 1.0, "step": -1}]}, "has no step: -1"),
        ({"log_history": [{"loss": 1.0, "step": True}]}, "has no step: True"),
        ('{"log_history": [{"loss": 1.0, "step": NaN}]}', "has no step: nan"),
        ({"log_history": [{"epoch": 1.0, "step": 1}]}, "neither losses nor validations"),
        ({"log_history": [{"loss": 1.0, "step": 1}], "global_step": "3"}, "global_step '3', which is no count"),
        ({"log_history": [{"loss": 1.0, "step": 1}], "total_flos": -1}, "total_flos -1, which is no amount"),
        ({"log_history": [{"step": 1, **{f"eval_{n}": 1.0 for n in range(65)}}]}, "65 figures of validation"),
    ],
    ids=["cut", "deep", "list", "empty", "mapping", "number", "stepless", "negative", "truth", "nan", "nothing",
         "text", "flops", "many"],
)  # fmt: skip
def test_what_is_no_such_file_is_told(tmp_path: Path, state: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_trainer_state(written(tmp_path, state))


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_trainer_state(tmp_path / "none.json")
    monkeypatch.setattr("thrifty.report.trainer_state.MOST_BYTES", 10)
    with pytest.raises(DataError, match="bytes, and 10 are read"):
        read_trainer_state(written(tmp_path, STATE))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["log_history", "step", "loss", "eval_loss", "global_step", "epoch", "x"]), inner, max_size=5
    ),
    max_leaves=25,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(state=JSON)
def test_whatever_is_given_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    path = tmp_path_factory.mktemp("state") / "trainer_state.json"
    path.write_text(json.dumps(state), encoding="utf-8")
    try:
        found = read_trainer_state(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert all(math.isfinite(value) for points in (found.loss, *found.validation.values()) for _, value in points)


def test_its_curves_are_on_the_same_pictures() -> None:
    plan, evaluations = make_plan(), make_evaluations()
    figures = curves(plan, make_steps(), evaluations)
    shown = {each.id: each for each in with_beside(figures, make_beside(), plan, evaluations)}
    assert list(shown) == ["loss", "validation", "learning-rate", "throughput", "validation-loss"]
    for name in ("loss", "validation", "learning-rate", "validation-loss"):
        assert shown[name].data[-1]["line"]["dash"] == "dash" and "vit-finetuned" in shown[name].says[0]
    assert shown["throughput"] in figures
    longer = make_beside(loss=((1.0, 3.0), (9_000.0, 0.5)))
    (loss, *_) = with_beside(figures, longer, plan, evaluations)
    assert loss.layout["xaxis"]["range"][1] == pytest.approx(9_180.0)
    bare = make_beside(loss=(), learning_rate=(), validation={"f1": ((1.0, 0.5),)})
    assert with_beside(figures, bare, plan, evaluations) == figures
