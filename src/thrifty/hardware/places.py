"""What a building adds to its machines' power, and what its grid emits: by place, dated and sourced, or your own."""

from __future__ import annotations

import csv
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from thrifty.errors import JobError, nearest
from thrifty.hardware.units import parse_kg_per_kwh
from thrifty.spec.device import Quantity
from thrifty.spec.plain import Plain
from thrifty.spec.units import format_bytes

OVERRIDE = "THRIFTY_ENERGY"
DEFAULT_PLACE = "world"
KEYS = ("place", "pue", "grid")
MAX_BYTES = 1 << 16
# no building draws a tenth of what its machines do, none is reported above three times
_PUE_RANGE = (1.0, 3.0)


class Place(Plain):
    """Where machines stand.

    Attributes:
        name: as in the table, or as the user's file calls it.
        pue: power of the whole building over that of its machines.
        grid_kg_per_kwh: carbon dioxide equivalent of a kilowatt-hour of the grid.
    """

    name: str
    pue: Quantity
    grid_kg_per_kwh: Quantity


def place(name: str = "") -> Place:
    """Return a place of the table; without a name, the one of ``$THRIFTY_ENERGY``, else the world's average.

    ``$THRIFTY_ENERGY`` is the name of a place, or the path of a YAML file with any of ``place``, ``pue`` and ``grid``.

    Raises:
        JobError: there is no such place, or the file says something that cannot be meant.

    >>> place("france").grid_kg_per_kwh.value < place("poland").grid_kg_per_kwh.value
    True
    """
    if name:
        return _listed(name)
    own = os.environ.get(OVERRIDE, "").strip()
    if not own:
        return _listed(DEFAULT_PLACE)
    return _from_file(Path(own)) if own.lower().endswith((".yaml", ".yml")) else _listed(own)


@cache
def places() -> dict[str, Place]:
    """Return every place of the table by name: countries, grid regions, and clouds' own buildings."""
    text = resources.files("thrifty.hardware").joinpath("energy.csv").read_text(encoding="utf-8")
    found: dict[str, Place] = {}
    usual: Place | None = None
    for line in csv.DictReader(text.splitlines()):
        pue = Quantity(value=float(line["pue"]), source=_said(line, "pue")) if line["pue"] else None
        grid = (
            Quantity(value=float(line["grid_kg_per_kwh"]), source=_said(line, "grid"))
            if line["grid_kg_per_kwh"]
            else None
        )
        if usual is not None:
            pue, grid = pue or usual.pue, grid or usual.grid_kg_per_kwh
        assert pue is not None and grid is not None, "the first place of the table is whole"
        found[line["place"]] = Place(name=line["place"], pue=pue, grid_kg_per_kwh=grid)
        usual = usual or found[line["place"]]
    return found


def _said(line: dict[str, str], what: str) -> str:
    return f"{line['place']}, {line['date']}: {line[f'{what}_source']}; override with {OVERRIDE}"


def _listed(name: str) -> Place:
    found = places().get(name.strip().lower().replace(" ", "-"))
    if found is None:
        raise JobError(
            f"unknown place '{name[:80]}'",
            nearest=nearest(name, places()),
            mend=f"Known: {', '.join(places())}; or name a file of your own with {OVERRIDE}.",
        )
    return found


def _from_file(path: Path) -> Place:
    values = _load(path)
    unknown = next((str(key) for key in values if key not in KEYS), None)
    if unknown is not None:
        raise JobError(
            f"unknown key '{unknown[:80]}' in '{path}' of {OVERRIDE}",
            nearest=nearest(unknown, KEYS),
            mend="Known: place (of the table), pue (such as 1.2), grid (such as 0.35 kg/kWh).",
        )
    base = _listed(str(values.get("place", DEFAULT_PLACE)))
    said = f"from {path.name}"
    update: dict[str, Any] = {}
    if "pue" in values:
        update["pue"] = Quantity(value=_pue(values["pue"], path), source=said)
    if "grid" in values:
        try:
            update["grid_kg_per_kwh"] = Quantity(value=parse_kg_per_kwh(values["grid"]), source=said)
        except ValueError as error:
            raise JobError(f"'{path}' of {OVERRIDE}, grid: {error}", mend="Write it like 0.35 kg/kWh.") from None
    return base.model_copy(update=update)


def _pue(value: Any, path: Path) -> float:
    low, high = _PUE_RANGE
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise JobError(
            f"'{path}' of {OVERRIDE}, pue: '{str(value)[:80]}' is not a number from {low:g} to {high:g}",
            mend="It is the building's power over its machines', such as 1.2.",
        )
    return float(value)


def _load(path: Path) -> dict[Any, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise JobError(
                f"'{path}' of {OVERRIDE} is larger than {format_bytes(MAX_BYTES)}", mend="It has three keys."
            )
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8 text"
        raise JobError(
            f"cannot read '{path}' of {OVERRIDE}: {why}", mend=f"Mend the path, or unset {OVERRIDE}."
        ) from error
    except yaml.YAMLError as error:
        raise JobError(f"'{path}' of {OVERRIDE} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict):
        raise JobError(f"'{path}' of {OVERRIDE} holds {type(values).__name__}, not keys and values")
    return values
