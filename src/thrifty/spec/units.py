"""Quantities with units, as people write them: bytes, seconds, joules, US dollars; parsed, checked, printed."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

BYTES = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
JOULES = {"J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3600.0, "kWh": 3.6e6}
USD = {"USD": 1.0}
FLOPS = {
    "flop": 1.0, "FLOP": 1.0, "MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12, "PFLOP": 1e15, "EFLOP": 1e18, "ZFLOP": 1e21,
}  # fmt: skip

_NUMBER_AND_UNIT = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]+)\s*")


def _parse(text: Any, units: dict[str, float] | dict[str, int], kind: str, example: str) -> float:
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


def parse_bytes(text: str) -> int:
    """Read an amount of memory or storage.

    >>> parse_bytes("4GiB")
    4294967296
    """
    return max(1, round(_parse(text, BYTES, "memory", "4GiB")))


def parse_seconds(text: str) -> float:
    """Read a length of time in seconds.

    >>> parse_seconds("20min")
    1200.0
    """
    return _parse(text, SECONDS, "time", "20min")


def parse_joules(text: str) -> float:
    """Read an amount of energy in joules.

    >>> parse_joules("0.05kWh")
    180000.0
    """
    return _parse(text, JOULES, "energy", "0.05kWh")


def parse_usd(text: str) -> float:
    """Read an amount of money; prices in thrifty's tables are US dollars, so no other currency is taken.

    >>> parse_usd("0.50USD")
    0.5
    """
    return _parse(text, USD, "money", "0.50USD")


def parse_flops(text: str) -> float:
    """Read a number of floating-point operations.

    >>> parse_flops("3EFLOP")
    3e+18
    """
    return _parse(text, FLOPS, "work", "1e18flop")


def _field(
    parse: Any, units: dict[str, float] | dict[str, int], unit: str, example: str
) -> tuple[BeforeValidator, PlainSerializer]:
    # what `_parse` takes: somewhere before the exponent stands another digit than 0
    number = r"(?=[0-9_.]*[1-9])[0-9][0-9_]*(\.[0-9]+)?([eE][+-]?[0-9]+)?"
    written = {"type": "string", "pattern": rf"^\s*{number}\s*({'|'.join(units)})\s*$", "examples": [example]}
    taken = BeforeValidator(parse, json_schema_input_type=Annotated[str, WithJsonSchema(written)])
    return taken, PlainSerializer(lambda value: f"{value!r}{unit}")


# Field types for the nouns: text with its unit on both ways, so that a bare number is never taken for one.
ByteCount = Annotated[int, *_field(parse_bytes, BYTES, "B", "4GiB")]
Duration = Annotated[float, *_field(parse_seconds, SECONDS, "s", "20min")]
Energy = Annotated[float, *_field(parse_joules, JOULES, "J", "0.05kWh")]
Money = Annotated[float, *_field(parse_usd, USD, "USD", "0.50USD")]


def write_bytes(count: int) -> str:
    """Write an amount of memory as a job has it, to the byte.

    >>> write_bytes(64 * 2**20), write_bytes(1_500)
    ('64MiB', '1500B')
    """
    units = ("TiB", "GiB", "MiB", "KiB")
    unit = next((each for each in units if count and count % BYTES[each] == 0), "B")
    return f"{count // BYTES[unit]}{unit}"


def format_bytes(count: float) -> str:
    """Print bytes with a binary unit.

    >>> format_bytes(1536 * 2**20), format_bytes(304 * 2**10)
    ('1.5 GiB', '304 KiB')
    """
    if not math.isfinite(count):
        return "no limit"
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(count) >= BYTES[unit]:
            amount = count / BYTES[unit]
            return f"{amount:.0f} {unit}" if abs(amount) >= 99.95 else f"{amount:.1f} {unit}"
    return f"{count:.0f} B"


def format_seconds(seconds: float) -> str:
    """Print a length of time the way a person would say it.

    >>> format_seconds(112), format_seconds(3.14159), format_seconds(7261), format_seconds(0.0042)
    ('1m 52s', '3.1 s', '2h 01m', '4.2 ms')
    >>> format_seconds(2_900_000)
    '33d 13h'
    """
    if not math.isfinite(seconds):
        return "no limit"
    if abs(seconds) < 1e-3:
        return f"{seconds * 1e6:.0f} µs" if seconds else "0 s"
    if abs(seconds) < 1:
        return f"{seconds * 1e3:.1f} ms" if abs(seconds) < 9.95e-3 else f"{seconds * 1e3:.0f} ms"
    if abs(seconds) < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 172_800:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600:02d}h"


def format_joules(joules: float) -> str:
    """Print energy in joules when small, in watt-hours when a meter would show it.

    >>> format_joules(0.02), format_joules(42), format_joules(2_315)
    ('< 0.1 J', '42 J', '2,315 J')
    >>> format_joules(11160), format_joules(7.2e6)
    ('3.1 Wh', '2.00 kWh')
    >>> format_joules(4.6e12)
    '1.28 GWh'
    """
    if not math.isfinite(joules):
        return "no limit"
    if 0 < joules < 0.05:
        return "< 0.1 J"
    if abs(joules) < 3600:
        return f"{joules:,.0f} J" if abs(joules) >= 10 else f"{joules:.1f} J"
    if abs(joules) < 3.6e6:
        return f"{joules / 3600:.1f} Wh"
    for size, unit in ((3.6e12, "GWh"), (3.6e9, "MWh")):
        if abs(joules) >= size:
            return f"{joules / size:.2f} {unit}"
    return f"{joules / 3.6e6:.2f} kWh"


def format_usd(usd: float) -> str:
    """Print money with as many digits as a small bill needs.

    >>> format_usd(0.00612), format_usd(12.5), format_usd(0.0000271)
    ('$0.0061', '$12.50', '$0.00003')
    >>> format_usd(4_321), format_usd(3_210_000)
    ('$4,321', '$3.21 M')
    """
    if not math.isfinite(usd):
        return "no limit"
    if abs(usd) >= 1e6:
        return f"${usd / 1e6:,.2f} M"
    if abs(usd) >= 1000:
        return f"${usd:,.0f}"
    if usd == 0 or abs(usd) >= 1:
        return f"${usd:,.2f}"
    digits = (1 if abs(usd) >= 1e-3 else 0) - math.floor(math.log10(abs(usd)))
    return f"${usd:.{min(digits, 6)}f}"


def format_flops(flops: float) -> str:
    """Print a number of floating-point operations.

    >>> format_flops(3.2e18), format_flops(4.5e12), format_flops(2_000)
    ('3.2 EFLOP', '4.5 TFLOP', '2,000 FLOP')
    """
    for unit in ("ZFLOP", "EFLOP", "PFLOP", "TFLOP", "GFLOP", "MFLOP"):
        if abs(flops) >= FLOPS[unit]:
            return f"{flops / FLOPS[unit]:,.1f} {unit}"
    return f"{flops:,.0f} FLOP"


def format_count(count: float) -> str:
    """Print a large number with its metric prefix.

    >>> format_count(22_600_000), format_count(9610), format_count(1.5e12)
    ('22.6 M', '9,610', '1.5 T')
    """
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(count) >= size:
            return f"{count / (1e3 if prefix == 'k' else size):.1f} {prefix}"
    return f"{count:,.0f}" if float(count).is_integer() else f"{count:.1f}"
