"""What MLflow's own client finds in its store after a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from told_runs import check, steps, tell, tell_two_attempts

pytest.importorskip("mlflow", reason="MLflow is in the extra 'mlflow'")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_what_was_written_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert tell_two_attempts("mlflow", tmp_path / "runs" / "digits") == []
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'runs' / 'mlflow.sqlite'}")
    experiment = client.get_experiment_by_name("digits")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == "digits"
    assert run.data.params["optim.learning_rate"] == "0.002" and run.data.params["model.name"] == "resnet8"
    assert run.data.tags["thrifty.reason"] == "all 30 steps done"

    def read(name: str) -> list[tuple[int, float]]:
        return sorted((each.step, each.value) for each in client.get_metric_history(run.info.run_id, name))

    check(read)
    assert not (tmp_path / "mlruns").exists(), "nothing beside the runs"


def test_another_store_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'theirs.sqlite'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "digits"
    folder.mkdir(parents=True)
    assert tell("mlflow", folder, steps(1, 3)) == []
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert run.info.status == "RUNNING" and run.data.metrics["train/loss"] == pytest.approx(1 / 3)
    assert not (tmp_path / "runs" / "mlflow.sqlite").exists()


def test_a_store_that_cannot_be_had_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'deep.sqlite'}")
    monkeypatch.chdir(tmp_path)
    (warned,) = tell("mlflow", tmp_path, steps(1, 3))
    assert "reporting to mlflow: it failed" in warned
