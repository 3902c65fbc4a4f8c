"""`MLflow`: a run in MLflow's store: a database beside the runs, or wherever ``MLFLOW_TRACKING_URI`` says."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from thrifty.files import write_atomic
from thrifty.report.to.desk import Last
from thrifty.report.to.figures import (
    STEP_TOLD,
    VALIDATION_TOLD,
    Place,
    bill_figures,
    figures_of,
    held_out_figures,
    settings_of,
)
from thrifty.spec.events import Ended, Evaluated, Event, Planned, StepDone

# of MLflow's own limits of a batch: 1,000 metrics, 100 parameters
METRICS_AT_ONCE, SETTINGS_AT_ONCE = 900, 90
# a transaction takes as long for many metrics as for few
HELD_SECONDS = 2.0
STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


def load() -> None:
    """Import what the writer needs."""
    # nobody is told that somebody uses MLflow, unless they have said so
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow.entities
    import mlflow.tracking

    if "MLFLOW_TRACKING_URI" not in os.environ:
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    # of each new database it tells how it is made
    logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)


def tracking_uri(folder: Path) -> str:
    """Return ``$MLFLOW_TRACKING_URI``, else that of a SQLite file beside the run's folder."""
    own = folder.resolve().parent / "mlflow.sqlite"
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{own}"


class MLflow:
    """Logs to an experiment named as the job; another attempt goes on in the same run of MLflow's."""

    def __init__(self, place: Place) -> None:
        from mlflow.tracking import MlflowClient

        self._place = place
        self._uri = tracking_uri(place.folder)
        self._client = MlflowClient(tracking_uri=self._uri)
        self._waiting: list[Any] = []
        self._written_at, self._step = time.monotonic(), 0
        self._kept = place.kept / "mlflow.json"
        self._run = self._gone_on() or self._begun()

    def last(self) -> Last:
        step, validation = (
            max((metric.step for metric in self._client.get_metric_history(self._run, name)), default=0)
            for name in (STEP_TOLD, VALIDATION_TOLD)
        )
        self._step = step
        return Last(step, validation)

    def tell(self, event: Event) -> None:
        match event:
            case StepDone() | Evaluated():
                self._step = event.step
                self._metrics(figures_of(event))
                if time.monotonic() - self._written_at > HELD_SECONDS:
                    self._send()
            case Planned(plan):
                self._settings(settings_of(plan))
            case Ended(status, reason, metrics, spent):
                self._metrics(held_out_figures(metrics) | bill_figures(spent))
                self._send()
                self._client.set_tag(self._run, "thrifty.reason", reason[:4000])
                self._client.set_terminated(self._run, STATUS.get(status, "FINISHED"))

    def flush(self) -> None:
        # each validation or step alone would be a transaction of its own
        if time.monotonic() - self._written_at > HELD_SECONDS:
            self._send()

    def close(self) -> None:
        self._send()

    def _gone_on(self) -> str:
        """The run of an earlier attempt in the same store, set going again; empty where there is none."""
        from mlflow.exceptions import MlflowException

        try:
            kept = json.loads(self._kept.read_bytes())
            if kept["uri"] != self._uri:
                return ""
            run = self._client.get_run(kept["run"])
            self._client.update_run(run.info.run_id, status="RUNNING")
        except (OSError, ValueError, KeyError, TypeError, MlflowException):
            return ""
        return str(run.info.run_id)

    def _begun(self) -> str:
        found = self._client.get_experiment_by_name(self._place.name)
        if found is None:
            # pictures and models are not logged, so this folder stays empty: it is named so that none is made elsewhere
            artifacts = (self._place.folder.resolve().parent / "mlflow").as_uri()
            own = {} if "MLFLOW_TRACKING_URI" in os.environ else {"artifact_location": artifacts}
            experiment = self._client.create_experiment(self._place.name, **own)
        else:
            experiment = found.experiment_id
        folder = self._place.folder
        run = self._client.create_run(experiment, run_name=folder.name, tags={"thrifty.folder": str(folder.resolve())})
        identity = {"uri": self._uri, "run": run.info.run_id}
        write_atomic(self._kept, json.dumps(identity), purpose="the run's name in MLflow")
        return str(run.info.run_id)

    def _settings(self, settings: dict[str, Any]) -> None:
        from mlflow.entities import Param

        # a parameter cannot be changed: another attempt may compute otherwise, and the first one's word stands
        known = self._client.get_run(self._run).data.params
        new = [Param(name, str(value)) for name, value in settings.items() if name not in known]
        for some in _portions(new, SETTINGS_AT_ONCE):
            self._client.log_batch(self._run, params=some)

    def _metrics(self, figures: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, self._step) for name, value in figures.items()]

    def _send(self) -> None:
        for some in _portions(self._waiting, METRICS_AT_ONCE):
            self._client.log_batch(self._run, metrics=some)
        self._waiting.clear()
        self._written_at = time.monotonic()


def _portions(values: list[Any], most: int) -> Iterable[list[Any]]:
    return (values[start : start + most] for start in range(0, len(values), most))
