"""What the machine costs by the hour: the dated list price of the cheapest instance that is as large, or your own."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

from thrifty.errors import JobError, nearest
from thrifty.spec.device import Quantity
from thrifty.spec.plain import Plain
from thrifty.spec.units import BYTES, format_bytes

OVERRIDE = "THRIFTY_PRICES"
COLUMNS = ("pattern", "kind", "instance", "cores", "memory_gib", "usd_per_hour", "region", "date", "source")
# may be left out: every row is then on demand, and holds for any number of devices
OPTIONAL = ("market", "devices")
KINDS = ("cpu", "cuda", "rocm", "tpu")
MARKETS = ("on demand", "spot")
MAX_PRICE_BYTES = 1 << 20


class Row(Plain):
    """One price.

    Attributes:
        pattern: searched in the processor's name.
        kind, instance, region, date, source: what it is, where and when it was listed.
        cores, memory_gib: of the instance; 0 stands for any.
        usd_per_hour: of the instance; of accelerators, for each of them.
        market: ``on demand``, or ``spot`` for capacity that can be taken away.
        devices: most that one order of it joins; 0 for any number.
    """

    pattern: str
    kind: str
    instance: str
    cores: int
    memory_gib: float
    usd_per_hour: float
    region: str
    date: str
    source: str
    market: str = "on demand"
    devices: int = 0


def price(
    kind: str, name: str, *, cores: int = 0, memory_bytes: int = 0, devices: int = 1, market: str = "on demand"
) -> Quantity:
    """Return US dollars by the hour of the cheapest listed instance with this processor and as much of it.

    Rows of the file named by ``$THRIFTY_PRICES`` go first. Of a box larger than any listed, the best of the listed is
    multiplied; of a CPU that is not listed, the cheapest box of any CPU is taken; of a GPU that is not, 0. The source
    says which of these it is.

    Args:
        kind: ``cpu``, ``cuda``, ``rocm`` or ``tpu``. A row of an accelerator is for one, with its share of the host.
        name: of the processor; of a CPU with vendor, family and model (`Probe.identity`).
        cores: logical processors needed; a CPU's rows with fewer are passed over.
        memory_bytes: host memory needed, likewise.
        devices: how many are to work together; rows of fewer are passed over while there are others.
        market: ``on demand`` or ``spot``; a spot price that nobody lists is 0, and its source says so.

    Raises:
        JobError: the file of ``$THRIFTY_PRICES`` cannot be read, or has something wrong in it: line and column named.
    """
    own, listed = (
        [row for row in table if row.kind == kind and row.market == market] for table in (_own_rows(), _rows())
    )
    for table in (own, listed):
        matching = [row for row in table if re.search(row.pattern, name)]
        if matching:
            return _cheapest(matching, kind, cores, memory_bytes, devices)
    short = name.partition(";")[0]
    what = "spot price" if market == "spot" else "price"
    if kind != "cpu" or not listed:
        return Quantity(value=0.0, source=f"no {what} known for '{short}'; name one with {OVERRIDE}")
    found = _cheapest(listed, kind, cores, memory_bytes, devices)
    return Quantity(value=found.value, source=f"no {what} known for '{short}', taken as {found.source}")


def _cheapest(rows: list[Row], kind: str, cores: int, memory_bytes: int, devices: int) -> Quantity:
    def times(row: Row) -> int:
        if kind != "cpu":
            return 1
        enough = [cores / row.cores] if row.cores else []
        enough += [memory_bytes / (row.memory_gib * BYTES["GiB"])] if row.memory_gib else []
        return max(1, math.ceil(max(enough, default=1)))

    # As few boxes as will do: nobody rents four small ones for one process.
    joined = [row for row in rows if not row.devices or row.devices >= devices]
    best = min(joined or rows, key=lambda row: (times(row), row.usd_per_hour))
    several = f"{times(best)} x " if times(best) > 1 else ""
    said = f"{several}{best.instance} {best.market} {best.region}, {best.date}, {best.source}"
    if not joined:
        said += f"; listed for {best.devices} that work together, not for {devices}"
    return Quantity(value=times(best) * best.usd_per_hour, source=f"{said}; override with {OVERRIDE}")


@cache
def _rows() -> tuple[Row, ...]:
    text = resources.files("thrifty.hardware").joinpath("prices.csv").read_text(encoding="utf-8")
    return parse_prices(text, "prices.csv")


def _own_rows() -> tuple[Row, ...]:
    named = os.environ.get(OVERRIDE)
    if not named:
        return ()
    path = Path(named)
    try:
        if path.stat().st_size > MAX_PRICE_BYTES:
            raise JobError(
                f"the price file '{path}' of {OVERRIDE} is larger than {format_bytes(MAX_PRICE_BYTES)}",
                mend="A row for each of your machines is enough.",
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise JobError(
            f"cannot read the price file '{path}' of {OVERRIDE}: {why}", mend=f"Mend the path, or unset {OVERRIDE}."
        ) from error
    return parse_prices(text, str(path))


def parse_prices(text: str, path: str) -> tuple[Row, ...]:
    """Read a table of prices.

    Args:
        text: csv with the header `COLUMNS`.
        path: its name, for errors.

    Raises:
        JobError: a column is missing or unknown, or a cell cannot be meant; file, line and column named.

    >>> parse_prices(",".join(COLUMNS) + chr(10) + "EPYC,cpu,mine,,,0.05,at home,2026-11,own bill", "own.csv")[0].cores
    0
    """
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        columns = reader.fieldnames or ()
        for name in columns:
            if name not in (*COLUMNS, *OPTIONAL):
                raise JobError(
                    f"{path}, line 1: unknown column '{name}'",
                    nearest=nearest(name, (*COLUMNS, *OPTIONAL)),
                    mend=f"The columns are {', '.join(COLUMNS)}; {' and '.join(OPTIONAL)} may be left out.",
                )
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            raise JobError(
                f"{path}, line 1: column '{missing[0]}' is missing", mend=f"The columns are {', '.join(COLUMNS)}."
            )
        return tuple(_row(cells, f"{path}, line {reader.line_num}", len(columns)) for cells in reader)
    except csv.Error as error:
        raise JobError(f"{path}, line {reader.line_num + 1}: not csv: {error}", mend="Mend its quotes.") from error


def _row(cells: dict[str, str], where: str, columns: int) -> Row:
    if None in cells or None in cells.values():
        raise JobError(f"{where}: not {columns} cells as in the header", mend="Quote cells with commas.")

    def cell(column: str, read: Callable[[str], object], want: str) -> object:
        text = cells.get(column, "").strip()
        try:
            value = read(text)
        except (ValueError, re.error):
            value = None
        if value is None:
            raise JobError(f"{where}, column '{column}': '{text}' is not {want}", mend="Correct the cell.")
        return value

    return Row.model_validate(
        {
            **{column: cells[column].strip() for column in COLUMNS},
            "pattern": cell("pattern", lambda text: re.compile(text).pattern or None, "a regular expression"),
            "kind": cell("kind", lambda text: text if text in KINDS else None, f"one of {', '.join(KINDS)}"),
            "cores": cell("cores", lambda text: _number(int(text or 0)), "a whole number of processors"),
            "memory_gib": cell("memory_gib", lambda text: _number(float(text or 0)), "a number of GiB"),
            "usd_per_hour": cell("usd_per_hour", lambda text: _number(float(text)), "US dollars by the hour"),
            "market": cell("market", _market, f"one of {', '.join(MARKETS)}"),
            "devices": cell("devices", lambda text: _number(int(text or 0)), "a whole number of devices"),
        }
    )


def _market(text: str) -> str | None:
    plain = text.lower().replace("-", " ") or MARKETS[0]
    return plain if plain in MARKETS else None


def _number(value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError
    return value
