"""Pay-back: what a search cost, what each thousand requests save, and after how many it has been worth it."""

from __future__ import annotations

import math

from thrifty.spec import Device, Measured, Payback, Spent


def pay_back(before: Measured, after: Measured, spent: Spent, device: Device) -> Payback:
    """Set what the search took against what requests of ``before.batch`` rows save.

    Seconds are those of a request that is answered alone; money is that time at the machine's price.
    """
    saved_s = before.latency_s.value - after.latency_s.value
    saved_joules = (before.joules_a_row.value - after.joules_a_row.value) * before.batch
    return Payback(
        rows=before.batch,
        seconds=spent.wall_s,
        joules=spent.joules,
        usd=spent.usd,
        saved_seconds=1000 * saved_s,
        saved_joules=1000 * saved_joules,
        saved_usd=1000 * saved_s * device.usd_per_hour.value / 3600,
        requests=_after(spent.wall_s, saved_s),
        requests_by_joules=_after(spent.joules, saved_joules),
    )


def _after(cost: float, saved: float) -> float:
    return math.ceil(cost / saved) if saved > 0 else math.inf
