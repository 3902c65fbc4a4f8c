"""The catalogue of devices that need not be here: GPUs, TPUs and processors as `Sheet`s, found by name or by driver."""

from __future__ import annotations

import difflib
import re
from functools import cache
from importlib import resources
from typing import Any

import yaml

from thrifty.errors import JobError
from thrifty.hardware.catalogue import Datasheet, Row, rows
from thrifty.hardware.probe import Gpu
from thrifty.hardware.sheet import Sheet, check_whole, read_sheet
from thrifty.spec.device import Quantity
from thrifty.spec.units import BYTES

MEMORY_SOURCE = "declared: of the usual machine with it, 4 GiB a logical processor as in general-purpose instances"
# A board at rest, of its full power: from what nvidia-smi shows, a tenth to a fifth.
GPU_IDLE_SHARE = 0.15
# Between a small board (70 W) and a large one (700 W), nearer the commonest.
DEFAULT_GPU_BUSY_WATTS = 300.0


@cache
def nodes() -> dict[str, Sheet]:
    """Return the boxes, racks and pods that devices stand in, by name."""
    values = _load("nodes.yaml")
    return {key: _read({"node": _bare(each), **_said_of(each)}, key, "nodes.yaml") for key, each in values.items()}


@cache
def sheets() -> dict[str, Sheet]:
    """Return every device of the catalogue by its key, accelerators first; each whole."""
    found: dict[str, Sheet] = {}
    for key, values in _load("accelerators.yaml").items():
        base = found[values["like"]] if "like" in values else None
        node = nodes()[values["node"]] if "node" in values else None
        own = {name: value for name, value in values.items() if name not in {"like", "node"}}
        found[key] = check_whole(
            _read(own, key, "accelerators.yaml", base=base, node=node), f"accelerators.yaml, {key}"
        )
    return {**found, **{row.key: _processor(row) for row in rows()}}


def find_sheet(name: str) -> Sheet:
    """Return the device of the catalogue with this name or alias; case, spaces and the maker's name do not matter.

    Raises:
        JobError: there is none; the nearest names are given.

    >>> find_sheet("NVIDIA H100").text("name")
    'H100 SXM'
    """
    wanted = _plain(name)
    found = _names().get(wanted)
    if found is not None:
        return sheets()[found]
    close = difflib.get_close_matches(wanted, _names(), n=4, cutoff=0.5)
    others = f"Nearest: {', '.join(close[1:])}. " if close[1:] else ""
    raise JobError(
        f"unknown device '{name}'",
        nearest=close[0] if close else "",
        mend=f"{others}All: thrifty hardware --all; a device of your own: a file such as my-chip.yaml.",
    )


def by_driver(name: str) -> Sheet | None:
    """Return the device that a driver calls by this name.

    >>> by_driver("NVIDIA H100 80GB HBM3").key
    'h100'
    """
    listed = (sheet for sheet in sheets().values() if sheet.text("match"))
    return next((sheet for sheet in listed if re.search(sheet.text("match"), name)), None)


def gpu_datasheet(gpu: Gpu) -> Datasheet:
    """Declared figures of a GPU that is here; its busy watts are the power limit that its driver reports, when it does.

    Idle watts keep the board's own when the limit is lowered; of a board that is not listed they are a declared share.
    """
    sheet = by_driver(gpu.name)
    if sheet is None:
        said = f"declared default: {DEFAULT_GPU_BUSY_WATTS:.0f} W a GPU that is not listed"
        busy = Quantity(value=DEFAULT_GPU_BUSY_WATTS, source=said)
    else:
        busy = sheet.numbers["busy"]
    if gpu.power_limit_watts:
        busy = Quantity(value=gpu.power_limit_watts, source="power limit by nvidia-smi")
    if sheet is None or sheet.value("idle") > busy.value:
        said = f"declared: {GPU_IDLE_SHARE:.0%} of the busy watts; {busy.source}"
        idle = Quantity(value=busy.value * GPU_IDLE_SHARE, source=said)
    else:
        idle = sheet.numbers["idle"]
    return Datasheet(
        name=sheet.text("name") if sheet else "",
        flops_per_second=sheet.peaks() if sheet else {},
        bytes_per_second={"memory": sheet.numbers["bandwidth"]} if sheet else {},
        idle_watts=idle,
        busy_watts=busy,
        calibration=sheet.text("calibration") if sheet else "",
    )


@cache
def _names() -> dict[str, str]:
    return {_plain(name): sheet.key for sheet in sheets().values() for name in (sheet.key, *sheet.aliases)}


def _plain(name: str) -> str:
    return re.sub(
        r"^(nvidia|amd|intel|google|geforce|tesla|instinct)-", "", re.sub(r"[\s_]+", "-", name.strip().lower())
    )


def _load(name: str) -> dict[str, Any]:
    text = resources.files("thrifty.hardware").joinpath(name).read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def _read(values: dict[str, Any], key: str, origin: str, base: Sheet | None = None, node: Sheet | None = None) -> Sheet:
    return read_sheet(values, key=key, origin=f"{origin}, {key}", said=_said, base=base, node=node)


def _said(source: str) -> str:
    return source if source.startswith(("declared", "derived", "re-read")) else f"datasheet: {source}"


def _bare(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in {"source", "sources"}}


def _said_of(node: dict[str, Any]) -> dict[str, Any]:
    return {name: node[name] for name in ("source", "sources") if name in node}


def _processor(row: Row) -> Sheet:
    """A socket of the catalogue of processors, alone in its node; rates as `catalogue.cpu_datasheet` derives them."""
    node = nodes()[row.node]
    numbers = {f"flops.{name}": each for name, each in row.peaks().items()}
    numbers["memory"] = Quantity(value=row.memory_gib * BYTES["GiB"], source=MEMORY_SOURCE)
    numbers["bandwidth"] = Quantity(value=row.gigabytes_per_second * 1e9, source=f"datasheet: {row.source}")
    numbers["cores"] = Quantity(value=row.cores, source=f"datasheet: {row.source}")
    numbers["idle"], numbers["busy"] = row.watts()
    numbers["node.host.memory"] = numbers["memory"]
    texts = {
        "name": row.name,
        "kind": "cpu",
        "driver": row.identity,
        "calibration": row.calibration,
        "isa": " ".join(row.isa),
        "logical": str(row.logical),
    }
    return Sheet(
        key=row.key,
        aliases=row.aliases,
        texts={**node.texts, **texts},
        numbers={**node.numbers, **numbers},
    )
