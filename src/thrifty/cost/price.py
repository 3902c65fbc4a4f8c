"""Turn seconds on a device into joules and dollars, each with the source of its watts or price."""

from __future__ import annotations

from thrifty.spec import Device, Interval

# Energy from declared power x time was 27 to 37 % off metered energy of whole nodes (arXiv 2506.14551)
_WATTS_DOUBT = 0.3
# of the rated range while training: every thread of a CPU works or spins; GPUs averaged 76 % (arXiv 2506.14551)
UTILISATION = {"cpu": 0.95, "cuda": 0.76}


def joules(seconds: Interval, device: Device, utilisation: float) -> Interval:
    """Predict energy: seconds at the power of a utilisation from 0 to 1, on the line from idle to busy watts.

    >>> from thrifty.spec import Quantity
    >>> device = Device.model_construct(
    ...     idle_watts=Quantity(value=10, source="declared"), busy_watts=Quantity(value=50, source="declared")
    ... )
    >>> joules(Interval.around(60, 0, "timed"), device, 0.5).value
    1800.0
    """
    watts = device.watts(utilisation)
    return Interval(
        low=seconds.low * watts * (1 - _WATTS_DOUBT),
        value=seconds.value * watts,
        high=seconds.high * watts * (1 + _WATTS_DOUBT),
        method=f"time x {watts:.3g} W: {utilisation:.0%} of the way from {device.idle_watts.value:.3g} W idle to "
        f"{device.busy_watts.value:.3g} W busy, ±{_WATTS_DOUBT:.0%} because they are declared",
    )


def usd(seconds: Interval, device: Device) -> Interval:
    """Predict money: seconds at the device's price by the hour, billed by the second.

    >>> from thrifty.spec import Quantity
    >>> device = Device.model_construct(usd_per_hour=Quantity(value=3.6, source="list price"))
    >>> usd(Interval.around(10, 0.1, "timed"), device).high
    0.011
    """
    per_second = device.usd_per_hour.value / 3600
    return Interval(
        low=seconds.low * per_second,
        value=seconds.value * per_second,
        high=seconds.high * per_second,
        method=f"time x ${device.usd_per_hour.value:.4g} an hour ({device.usd_per_hour.source})",
    )
