"""What the server counts of itself, for Prometheus; one registry for each app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from thrifty.serve.bill import Bill
from thrifty.serve.generation.tallies import SECONDS, Tallies
from thrifty.serve.http import CLIENT_LEFT
from thrifty.serve.recent import Recent

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class _Of:
    """Metrics of `Metrics` by their names there, of one model."""

    seconds: Histogram
    waited: Histogram
    cpu: Counter
    rows: Counter
    batch_rows: Histogram
    batch_seconds: Histogram


class Metrics:
    """Counters and histograms of one app; a model's label is ``name:version``, never text that a client made up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.texts = Tallies(self.registry)
        self.recent = Recent()
        self.requests = Counter(
            "thrifty_requests",
            "Requests for an answer, by outcome.",
            ("model", "protocol", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "thrifty_request_seconds",
            "From the head of a request to its answer.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.rows = Counter("thrifty_rows", "Images or prompts computed.", ("model",), registry=self.registry)
        self.batch_rows = Histogram(
            "thrifty_batch_rows", "Rows computed at once.", ("model",), buckets=_ROWS, registry=self.registry
        )
        self.batch_seconds = Histogram(
            "thrifty_batch_seconds", "Computing a batch.", ("model",), buckets=SECONDS, registry=self.registry
        )
        self.queue_rows = Gauge(
            "thrifty_queue_rows", "Rows waiting to be computed.", ("model",), registry=self.registry
        )

        self.waited = Histogram(
            "thrifty_queue_seconds",
            "Of the oldest request of a batch, before it was computed.",
            ("model",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.cpu = Counter(
            "thrifty_cpu_seconds",
            "Processor time of a model's worker; of one without a process of its own, of its thread alone.",
            ("model",),
            registry=self.registry,
        )
        self.lost = Counter(
            "thrifty_workers_lost",
            "Workers that died or hung, and were started again.",
            ("model", "how"),
            registry=self.registry,
        )

        self.shed = Counter(
            "thrifty_shed",
            "Requests refused because they would have come too late, or had no room.",
            ("model",),
            registry=self.registry,
        )
        self.cancelled = Counter(
            "thrifty_cancelled",
            "Requests whose client left before they were answered.",
            ("model",),
            registry=self.registry,
        )
        self.registry.register(Bill(self.cpu))
        self._models: dict[str, _Of] = {}
        self._outcomes: dict[tuple[str, str, int], Counter] = {}

    def worker_lost(self, model: str, how: str) -> None:
        """Count a worker that ``died`` or ``hung``."""
        self.lost.labels(model, how).inc()

    def batch_done(self, model: str, rows: int, seconds: float, *, waited: float, cpu_seconds: float) -> None:
        """Count one batch."""
        of = self._of(model)
        of.waited.observe(waited)
        of.cpu.inc(cpu_seconds)
        of.rows.inc(rows)
        of.batch_rows.observe(rows)
        of.batch_seconds.observe(seconds)

    def request_done(self, model: str, protocol: str, status: int, seconds: float) -> None:
        """Count one request."""
        outcome = (model, protocol, status)
        if outcome not in self._outcomes:
            self._outcomes[outcome] = self.requests.labels(*map(str, outcome))
        self._outcomes[outcome].inc()
        if model and status == CLIENT_LEFT:
            self.cancelled.labels(model).inc()
        if model:
            self._of(model).seconds.observe(seconds)
            self.recent.add(model, seconds)

    def _of(self, model: str) -> _Of:
        """What is counted of a model; kept, for looking a metric up costs as much as counting."""
        if model not in self._models:
            self._models[model] = _Of(
                seconds=self.seconds.labels(model),
                waited=self.waited.labels(model),
                cpu=self.cpu.labels(model),
                rows=self.rows.labels(model),
                batch_rows=self.batch_rows.labels(model),
                batch_seconds=self.batch_seconds.labels(model),
            )
        return self._models[model]

    def watch_queue(self, model: str, rows: Callable[[], float]) -> None:
        """Ask this for the rows that wait, whenever they are looked at."""
        self.queue_rows.labels(model).set_function(rows)

    def forget(self, model: str) -> None:
        """Let go of a model that left; its counters stay, for a counter that vanishes reads as a restart."""
        self.queue_rows.remove(model)
        self.texts.forget(model)
        self.recent.forget(model)

    def computed(self, model: str) -> tuple[int, int, float]:
        """Rows and batches that a model has computed, and the seconds that they took."""
        names = ("thrifty_rows_total", "thrifty_batch_seconds_count", "thrifty_batch_seconds_sum")
        rows, batches, seconds = (self.registry.get_sample_value(name, {"model": model}) or 0.0 for name in names)
        return int(rows), int(batches), seconds

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
