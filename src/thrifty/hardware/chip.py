"""Read a hardware file such as ``my-chip.yaml``: a device that need not exist, alone or like one of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from thrifty.errors import JobError, nearest
from thrifty.hardware.accelerators import find_sheet, nodes
from thrifty.hardware.sheet import Sheet, check_whole, read_sheet
from thrifty.spec.units import format_bytes

MAX_CHIP_BYTES = 1 << 16
# what names a listed device, and does not name one that is like it
_OWN = ("name", "driver", "match", "like", "source")


def read_chip(path: Path) -> Sheet:
    """Read a hardware file; each number it gives has the file for its source, the rest are the ``like`` device's.

    Raises:
        JobError: there is no such file, it is too large or not YAML; a key is unknown, a number is missing or cannot
            be meant. Each is named, with what it is for and an example.
    """
    values = _load(path)
    own = path.name
    like, node = values.pop("like", None), values.get("node")
    base = None if like is None else _listed(like, own)
    around = None
    if isinstance(node, str):
        around = _node(node, own)
        values.pop("node")
    elif isinstance(node, dict) and "like" in node:
        around = _node(node["like"], own)
        values["node"] = {key: value for key, value in node.items() if key != "like"}
    if base is not None:
        base = base.model_copy(update={"texts": {k: v for k, v in base.texts.items() if k not in _OWN}})
    sheet = read_sheet(
        values,
        key=path.stem,
        origin=own,
        said=lambda source: f"from {own}: {source}" if source else f"from {own}",
        base=base,
        node=around,
    )
    texts = {"name": path.stem, "kind": "cuda", **sheet.texts}
    if base is not None:
        texts["like"] = base.key
    for part in ("node.link.name", "node.network.name"):
        texts.setdefault(part, part.split(".")[1])
    return check_whole(sheet.model_copy(update={"texts": texts}), own)


def _load(path: Path) -> dict[Any, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_CHIP_BYTES:
            raise JobError(
                f"hardware file '{path}' has {format_bytes(size)}, more than {format_bytes(MAX_CHIP_BYTES)}",
                mend="A device is a few lines; see docs/hardware.md.",
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = nearest(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "not UTF-8 text"
        raise JobError(f"cannot read the hardware file '{path}': {why}", nearest=near, mend="Mend the path.") from error
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise JobError(f"hardware file '{path}' is not YAML: {said}", mend="See docs/hardware.md.") from None
    if not isinstance(values, dict):
        raise JobError(
            f"hardware file '{path}' holds {type(values).__name__}, not keys and values",
            mend="The least of one is: like: h100",
        )
    return values


def _listed(name: Any, own: str) -> Sheet:
    try:
        return find_sheet(str(name))
    except JobError as error:
        raise JobError(f"{own}, like: {error.what}", nearest=error.nearest, mend=error.mend) from None


def _node(name: Any, own: str) -> Sheet:
    found = nodes().get(str(name)) if isinstance(name, str) else None
    if found is None:
        raise JobError(
            f"{own}: unknown node '{str(name)[:80]}'",
            nearest=nearest(str(name)[:80], nodes()),
            mend=f"Known: {', '.join(nodes())}; or write its numbers under node.",
        )
    return found
