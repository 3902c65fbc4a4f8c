"""`Cluster`s from what a user types: ``h100``, ``h100:8``, ``a100-80g:8x128``, ``my-chip.yaml:64``."""

from __future__ import annotations

import re
from pathlib import Path

from thrifty.errors import JobError
from thrifty.hardware.accelerators import find_sheet, sheets
from thrifty.hardware.chip import read_chip
from thrifty.hardware.places import place
from thrifty.hardware.prices import price
from thrifty.hardware.sheet import PRECISIONS, Sheet
from thrifty.spec.device import Cluster, Device, DeviceKind, Link, Quantity

MAX_DEVICES = 1_000_000

# What a host draws over its rated share. A DGX H100 is rated 10.2 kW, of which its GPUs are 5.6; arXiv 2412.08602
# measured at most 8.4 kW while its GPUs stood near their limit: (8.4 - 5.6) / (10.2 - 5.6).
HOST_SHARE_OF_RATED = 0.61

_KINDS: dict[str, DeviceKind] = {"cuda": "cuda", "rocm": "rocm", "tpu": "tpu", "cpu": "cpu"}
_FILE = re.compile(r"(?P<path>.+\.ya?ml)(?::(?P<count>[^:/\\]*))?", re.IGNORECASE)
_COUNTS = re.compile(r"([0-9]+)(?:\s*[x×*]\s*([0-9]+))?", re.IGNORECASE)


def find_cluster(text: str) -> Cluster:
    """Return the devices that a user asks for.

    Args:
        text: ``NAME``, ``NAME:DEVICES`` or ``NAME:PER_NODExNODES``, where the name is a device's or alias of the
            catalogue, or the path of a hardware file (``.yaml``). Devices that are more than a usual node are filled
            into nodes of the usual size; of a rack that is used in parts, into the largest equal parts.

    Raises:
        JobError: the device is unknown, a count cannot be meant or does not divide into nodes, or the file is wrong.

    >>> cluster = find_cluster("a100-80g:8x128")
    >>> cluster.devices, cluster.nodes, cluster.device.calibration
    (1024, 128, 'a100')
    >>> find_cluster("h100:4").per_node
    4
    """
    sheet, count = _named(text)
    per_node, nodes = _counts(text, count, sheet)
    return _cluster(text.strip(), sheet, per_node, nodes)


def find_device(name: str) -> Device:
    """Return one device of the catalogue, or of a hardware file; as `find_cluster` does.

    >>> round(find_device("a100").flops_per_second["bf16"].value / 1e12)
    312
    """
    return find_cluster(name).device


def catalogue_devices() -> tuple[Device, ...]:
    """Return every device of the catalogue, accelerators first."""
    return tuple(_device(sheet, 1) for sheet in sheets().values())


def catalogue_clusters() -> tuple[Cluster, ...]:
    """Return a usual node of every device of the catalogue: eight of a server's, the host's share of a rack or pod."""
    return tuple(_cluster(f"{key}:{_host(sheet)}", sheet, _host(sheet), 1) for key, sheet in sheets().items())


def catalogue_rows() -> tuple[dict[str, str | float], ...]:
    """Return the catalogue as plain data, a row for each device, as `catalogue_devices`.

    Keys: ``name`` to ask for it by, ``aliases``, ``device``, ``kind``, ``memory_bytes``, ``bytes_per_second``, FLOP/s
    by precision (``fp32`` to ``fp4``; 0 where it has none), ``busy_watts``, ``idle_watts``, ``per_node``,
    ``link``, ``link_bytes_per_second``, ``network``, ``network_bytes_per_second``, ``usd_per_hour``,
    ``spot_usd_per_hour``, ``calibration``, and ``source`` of the rates.
    """
    found: list[dict[str, str | float]] = []
    for key, sheet in sheets().items():
        peaks = sheet.peaks()
        found.append(
            {
                "name": key,
                "aliases": ", ".join(sheet.aliases),
                "device": sheet.text("name"),
                "kind": sheet.text("kind"),
                "memory_bytes": sheet.value("memory"),
                "bytes_per_second": sheet.value("bandwidth"),
                **{name: peaks[name].value if name in peaks else 0.0 for name in PRECISIONS},
                "busy_watts": sheet.value("busy"),
                "idle_watts": sheet.value("idle"),
                "per_node": sheet.value("node.devices"),
                "link": sheet.text("node.link.name"),
                "link_bytes_per_second": sheet.value("node.link.bandwidth"),
                "network": sheet.text("node.network.name"),
                "network_bytes_per_second": sheet.value("node.network.bandwidth"),
                "usd_per_hour": _price(sheet, 1, "on demand").value,
                "spot_usd_per_hour": _spot(sheet, 1).value,
                "calibration": sheet.text("calibration"),
                "source": next(iter(peaks.values())).source,
            }
        )
    return tuple(found)


def _named(text: str) -> tuple[Sheet, str | None]:
    asked = text.strip()
    file = _FILE.fullmatch(asked)
    if file is not None:
        return read_chip(Path(file["path"]).expanduser()), file["count"]
    name, colon, count = asked.partition(":")
    if not name.strip():
        raise JobError(f"no device is named in '{text}'", mend="Write it like h100:8. All: thrifty hardware --all.")
    return find_sheet(name), count if colon else None


def _counts(text: str, count: str | None, sheet: Sheet) -> tuple[int, int]:
    if count is None:
        return 1, 1
    found = _COUNTS.fullmatch(count.strip())
    if found is None:
        raise JobError(
            f"'{count.strip()[:80]}' in '{text.strip()[:80]}' is not a number of devices",
            mend="Write devices, as in h100:16, or devices of a node x nodes, as in h100:8x2.",
        )
    # more digits than this are too many devices, and more than int() will read
    first, nodes = int(found[1][:12]), int((found[2] or "1")[:12])
    if not first or not nodes:
        raise JobError(f"'{text.strip()}' asks for no devices", mend="Ask for one or more, as in h100:1.")
    if first * nodes > MAX_DEVICES:
        raise JobError(f"'{text.strip()[:80]}' asks for more than {MAX_DEVICES:,} devices", mend="Ask for fewer.")
    usual = round(sheet.value("node.devices"))
    if found[2] is not None:
        if first > usual:
            raise JobError(
                f"'{text.strip()}' asks for {first} devices a node; {sheet.text('node.link.name')} joins {usual}",
                mend=f"Ask for {sheet.key}:{first * nodes}, or write a file with like: {sheet.key} and node.devices.",
            )
        return first, nodes
    if first <= usual:
        return first, 1
    parts = _parts(sheet, usual)
    fitting = next((part for part in parts if first % part == 0), None)
    if fitting is None:
        below, above = first - first % usual, first + usual - first % usual
        even = next(size for size in range(usual, 0, -1) if first % size == 0)
        raise JobError(
            f"{first} devices do not divide into nodes of {' or '.join(str(part) for part in parts[:3])}",
            mend=f"Ask for {below} or {above}, or for smaller nodes, as in {sheet.key}:{even}x{first // even}.",
        )
    return fitting, first // fitting


def _parts(sheet: Sheet, usual: int) -> list[int]:
    """Sizes of node that devices may be filled into: the usual one, and parts of it down to a half, largest first."""
    step = round(sheet.value("node.partition", usual))
    return [size for size in range(usual, max(usual // 2, 1) - 1, -step) if size >= step]


def _host(sheet: Sheet) -> int:
    return round(sheet.value("node.host.devices", sheet.value("node.devices")))


def _cluster(name: str, sheet: Sheet, per_node: int, nodes: int) -> Cluster:
    host, share = _host(sheet), per_node / _host(sheet)
    memory, watts = sheet.numbers["node.host.memory"], _shared(_host_watts(sheet), share, per_node, host)
    if nodes > 1 and "node.network.power" in sheet.numbers:
        switches = sheet.numbers["node.network.power"]
        watts = Quantity(
            value=watts.value + per_node * switches.value,
            source=f"{watts.source}; and {per_node} x {switches.value:g} W of the network between nodes: "
            f"{switches.source}",
        )
    where = place()
    return Cluster(
        name=name,
        device=_device(sheet, per_node * nodes),
        per_node=per_node,
        nodes=nodes,
        intra=_link(sheet, "link"),
        inter=_link(sheet, "network"),
        host_memory_bytes=_shared(memory, share, per_node, host),
        host_watts=watts,
        pue=where.pue,
        grid_kg_per_kwh=where.grid_kg_per_kwh,
        usd_per_hour=_price(sheet, per_node * nodes, "on demand"),
        spot_usd_per_hour=_spot(sheet, per_node * nodes),
    )


def _shared(whole: Quantity, share: float, per_node: int, host: int) -> Quantity:
    if share == 1:
        return whole
    said = f"{per_node // host} hosts of {host} devices" if share > 1 else f"{per_node} of a host's {host} devices"
    return Quantity(value=whole.value * share, source=f"derived: {said}; {whole.source}")


def _host_watts(sheet: Sheet) -> Quantity:
    if "node.host.power" in sheet.numbers:
        return sheet.numbers["node.host.power"]
    rated, devices = sheet.numbers["node.host.system"], _host(sheet)
    return Quantity(
        value=max(rated.value - devices * sheet.value("busy"), 0) * HOST_SHARE_OF_RATED,
        source=f"derived: {HOST_SHARE_OF_RATED:.0%} (arXiv 2412.08602) of the rated {rated.value:g} W less "
        f"{devices} devices of {sheet.value('busy'):g} W; {rated.source}",
    )


def _link(sheet: Sheet, which: str) -> Link:
    return Link(
        name=sheet.text(f"node.{which}.name"),
        bytes_per_second=sheet.numbers[f"node.{which}.bandwidth"],
        latency_s=sheet.numbers[f"node.{which}.latency"],
    )


def _device(sheet: Sheet, devices: int) -> Device:
    cache = {"L2": round(sheet.value("cache"))} if "cache" in sheet.numbers else {}
    return Device(
        name=sheet.text("name"),
        kind=_KINDS[sheet.text("kind")],
        cores=round(sheet.value("cores", 1)),
        isa=tuple(sheet.text("isa").split()),
        cache_bytes=cache,
        memory_bytes=round(sheet.value("memory")),
        memory_source=sheet.numbers["memory"].source,
        flops_per_second=sheet.peaks(),
        bytes_per_second=sheet.numbers["bandwidth"],
        datasheet_flops_per_second=sheet.peaks(),
        datasheet_bytes_per_second={"memory": sheet.numbers["bandwidth"]},
        idle_watts=sheet.numbers["idle"],
        busy_watts=sheet.numbers["busy"],
        usd_per_hour=_price(sheet, devices, "on demand"),
        measured_on="",
        calibration=sheet.text("calibration"),
    )


def _spot(sheet: Sheet, devices: int) -> Quantity:
    found, sure = _price(sheet, devices, "spot"), _price(sheet, devices, "on demand")
    if not 0 < sure.value <= found.value:
        return found
    said = (
        f"no spot price below the {sure.value:g} USD on demand; the lowest known is {found.value:g} USD: {found.source}"
    )
    return Quantity(value=0.0, source=said)


def _price(sheet: Sheet, devices: int, market: str) -> Quantity:
    own = sheet.numbers.get("price" if market == "on demand" else "spot")
    if own is not None:
        return own
    like = sheet.text("like")
    if like:
        found = _price(find_sheet(like), devices, market)
        return Quantity(value=found.value, source=f"no price in {sheet.key}.yaml, taken as {like}'s: {found.source}")
    name = sheet.text("driver", sheet.text("name"))
    if sheet.text("kind") != "cpu":
        return price(sheet.text("kind"), name, devices=devices, market=market)
    memory = round(sheet.value("memory"))
    return price("cpu", name, cores=int(sheet.text("logical")), memory_bytes=memory, devices=devices, market=market)
