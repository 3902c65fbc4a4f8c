"""What serving costs: processor time of each model's worker, turned into joules and money.

Units: joules and US dollars a second of processor time. No energy counter tells the share of one process, so joules are
always derived: the watts that are declared for this processor, all cores busy, divided among its cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from prometheus_client import Counter
from prometheus_client.core import CounterMetricFamily


@dataclass(frozen=True)
class Rates:
    """What a second of one core takes.

    Attributes:
        joules, usd: a second.
        source: of both.
    """

    joules: float
    usd: float
    source: str


@cache
def rates() -> Rates:
    """Return the rates of this machine, from its data sheet and its list price."""
    from thrifty.hardware.catalogue import cpu_datasheet
    from thrifty.hardware.prices import price
    from thrifty.hardware.probe import probe

    found = probe()
    watts = cpu_datasheet(found).busy_watts
    hourly = price("cpu", found.identity, cores=found.cores, memory_bytes=found.memory_bytes)
    return Rates(watts.value / found.cores, hourly.value / 3600 / found.cores, f"{watts.source}; {hourly.source}")


class Bill:
    """Tells Prometheus joules and money by model, when it asks.

    Args:
        cpu: seconds of processor time by model.
    """

    def __init__(self, cpu: Counter) -> None:
        self._cpu = cpu

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Both counters, from the processor time so far."""
        rate = rates()
        joules = CounterMetricFamily(
            "thrifty_joules", "Energy of a model's worker: declared watts by processor time.", labels=["model"]
        )
        usd = CounterMetricFamily(
            "thrifty_usd", "List price of a model's share of this machine's cores.", labels=["model"]
        )
        for metric in self._cpu.collect():
            for sample in metric.samples:
                if sample.name.endswith("_total"):
                    joules.add_metric([sample.labels["model"]], sample.value * rate.joules)
                    usd.add_metric([sample.labels["model"]], sample.value * rate.usd)
        yield joules
        yield usd
