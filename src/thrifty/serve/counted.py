"""What a server has counted of each model so far, with its bill, read at once for people."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from thrifty.serve.bill import rates
from thrifty.serve.metrics import Metrics

_REQUESTS = "thrifty_requests_total"
# counters and sums of histograms by the field that they add up to
_FIELDS = {
    _REQUESTS: "requests",
    "thrifty_rows_total": "rows",
    "thrifty_first_token_seconds_count": "texts",
    "thrifty_generated_tokens_total": "tokens",
    "thrifty_batch_rows_sum": "batch_rows",
    "thrifty_batch_rows_count": "batches",
    "thrifty_queue_rows": "waiting",
    "thrifty_shed_total": "shed",
    "thrifty_cancelled_total": "cancelled",
    "thrifty_cpu_seconds_total": "cpu_seconds",
}


@dataclass(frozen=True)
class Counted:
    """Of one model since the server began.

    Attributes:
        requests: for it, of which ``answered`` were answered, ``shed`` were refused for want of time or room, and of
            ``cancelled`` the client left.
        rows: computed; of a model that writes, ``texts`` begun, of ``tokens`` in all.
        batches: computed, of ``batch_rows`` rows in all; of a model that writes, steps and the texts in them.
        waiting: rows in its queue now.
        cpu_seconds: of its worker, by which ``joules`` and ``usd`` are derived (`thrifty.serve.bill`).
    """

    requests: float = 0.0
    answered: float = 0.0
    shed: float = 0.0
    cancelled: float = 0.0
    rows: float = 0.0
    texts: float = 0.0
    tokens: float = 0.0
    batches: float = 0.0
    batch_rows: float = 0.0
    waiting: float = 0.0
    cpu_seconds: float = 0.0
    joules: float = 0.0
    usd: float = 0.0

    @property
    def rows_a_batch(self) -> float:
        """In the mean; 0 before the first one."""
        return self.batch_rows / self.batches if self.batches else 0.0

    def since(self, before: Counted) -> Counted:
        """What was counted since then; what waits is of now."""
        rest = {name: getattr(self, name) - getattr(before, name) for name in self.__dict__ if name != "waiting"}
        return Counted(waiting=self.waiting, **rest)


def count(metrics: Metrics) -> dict[str, Counted]:
    """Read what was counted, by the models' labels, ``name:version``."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for metric in metrics.registry.restricted_registry(_FIELDS).collect():
        for sample in metric.samples:
            model = sample.labels.get("model")
            field = _FIELDS.get(sample.name)
            if model and field:
                found[model][field] += sample.value
                if sample.name == _REQUESTS and sample.labels["status"] == "200":
                    found[model]["answered"] += sample.value
    rate = rates()
    return {
        model: Counted(**fields, joules=fields["cpu_seconds"] * rate.joules, usd=fields["cpu_seconds"] * rate.usd)
        for model, fields in found.items()
    }
