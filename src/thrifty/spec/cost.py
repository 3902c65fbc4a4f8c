"""`Cost`: what a plan takes, in seconds, bytes, joules, dollars and FLOPs, each with its interval and method."""

from __future__ import annotations

from pydantic import model_validator

from thrifty.spec.plain import Plain


class Interval(Plain):
    """A value and the bounds it should fall between nine times in ten, with how it was derived.

    ``first`` is what the cost model said before a probe or the ledger corrected it; 0 where nothing did.

    >>> Interval.around(10.0, 0.2, "measured over 5 steps").high
    12.0
    """

    low: float
    value: float
    high: float
    method: str
    first: float = 0.0

    @property
    def uncorrected(self) -> float:
        """What the cost model said by itself."""
        return self.first or self.value

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"interval out of order: {self.low}, {self.value}, {self.high}")
        return self

    @classmethod
    def around(cls, value: float, share: float, method: str) -> Interval:
        """Make an interval of ``value`` plus or minus a share of it."""
        return cls(low=value * (1 - share), value=value, high=value * (1 + share), method=method)


class Cost(Plain):
    """What one plan is predicted to take, for the whole run.

    Attributes:
        seconds: wall time of training and the validations in it.
        peak_bytes: resident memory above what a run begins with, or memory of the accelerator.
        joules: energy of the machine.
        usd: money at the device's price.
        flops: floating-point operations of training (a multiply-add counts two).
    """

    seconds: Interval
    peak_bytes: Interval
    joules: Interval
    usd: Interval
    flops: Interval


class Spent(Plain):
    """What was measured of one stage, or of a whole run.

    Attributes:
        wall_s: wall-clock seconds.
        cpu_s: processor seconds of this process and its children, all threads.
        peak_rss_bytes: largest resident memory while the stage ran, above what it was when the run began.
        device_peak_bytes: largest memory allocated on the accelerator; 0 without one.
        written_bytes: bytes that the stage caused to be written to storage.
        flops: operations counted from the traced step times the steps done; 0 where none was traced.
        peak_share: ``flops / wall_s`` over the measured peak rate of the device at the precision used.
        joules: energy.
        joules_method: the counter that gave it, or the declared watts it was derived from.
        usd: money.
        usd_method: the price it was derived from, with date and source.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0
    device_peak_bytes: int = 0
    written_bytes: int = 0
    flops: float = 0.0
    peak_share: float = 0.0
    joules: float = 0.0
    joules_method: str = ""
    usd: float = 0.0
    usd_method: str = ""
