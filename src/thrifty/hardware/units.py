"""Rates, power, delays and prices with units, as people write them in a hardware file."""

from __future__ import annotations

import math
import re
from typing import Any

from thrifty.spec.units import BYTES

FLOPS_PER_SECOND = {
    "MFLOP/s": 1e6, "GFLOP/s": 1e9, "TFLOP/s": 1e12, "PFLOP/s": 1e15,
    "GOP/s": 1e9, "TOP/s": 1e12, "POP/s": 1e15,
}  # fmt: skip
BYTES_PER_SECOND = {f"{unit}/s": float(size) for unit, size in BYTES.items()} | {"Gbit/s": 1e9 / 8, "Tbit/s": 1e12 / 8}
WATTS = {"mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6}
DELAYS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
USD_PER_HOUR = {"USD/h": 1.0}
KG_PER_KWH = {"kg/kWh": 1.0, "g/kWh": 1e-3}

MAX_COUNT = 1_000_000

_NUMBER_AND_UNIT = re.compile(
    r"\s*(-?[0-9][0-9_]{0,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?)\s*([^\s0-9]\S{0,11})\s*"
)


def _parse(text: Any, units: dict[str, float], kind: str, example: str) -> float:
    known = ", ".join(units)
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{kind} needs a number and a unit, got {text!r}; write it like '{example}' ({known})")
    number, unit = float(match[1].replace("_", "")), match[2]
    if unit not in units:
        same = next((u for u in units if u.lower() == unit.lower()), "")
        guess = f" did you mean '{same}'?" if same else ""
        raise ValueError(f"unknown unit '{unit}' of {kind} in {text!r};{guess} known: {known}")
    if not math.isfinite(number) or number <= 0:
        raise ValueError(f"{kind} must be above zero, got {text!r}")
    return number * units[unit]


def parse_flops_per_second(text: Any) -> float:
    """Read a rate of arithmetic; a multiply-add counts two.

    >>> parse_flops_per_second("989 TFLOP/s")
    989000000000000.0
    """
    return _parse(text, FLOPS_PER_SECOND, "arithmetic", "989 TFLOP/s")


def parse_bytes_per_second(text: Any) -> float:
    """Read a rate of bytes.

    >>> parse_bytes_per_second("3350 GB/s"), parse_bytes_per_second("400 Gbit/s")
    (3350000000000.0, 50000000000.0)
    """
    return _parse(text, BYTES_PER_SECOND, "a bandwidth", "3350 GB/s")


def parse_watts(text: Any) -> float:
    """Read a power.

    >>> parse_watts("10.2 kW")
    10200.0
    """
    return _parse(text, WATTS, "power", "700 W")


def parse_delay(text: Any) -> float:
    """Read the delay of a message, in seconds.

    >>> parse_delay("3 us")
    3e-06
    """
    return _parse(text, DELAYS, "a delay", "3 us")


def parse_usd_per_hour(text: Any) -> float:
    """Read a price by the hour.

    >>> parse_usd_per_hour("2.50 USD/h")
    2.5
    """
    return _parse(text, USD_PER_HOUR, "a price", "2.50 USD/h")


def parse_kg_per_kwh(text: Any) -> float:
    """Read what a grid emits, in kilograms of carbon dioxide equivalent by the kilowatt-hour.

    >>> parse_kg_per_kwh("56 g/kWh")
    0.056
    """
    return _parse(text, KG_PER_KWH, "emission", "0.35 kg/kWh")


def parse_count(value: Any) -> float:
    """Read a whole number above zero, no larger than a million.

    >>> parse_count(8)
    8.0
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_COUNT:
        raise ValueError(f"a count is a whole number from 1 to {MAX_COUNT:,}, got {value!r}")
    return float(value)
