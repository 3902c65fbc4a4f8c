"""Tables of hardware that need not be here: the catalogue, and one cluster with the source of each number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from thrifty import hardware
from thrifty.report.rows import UNKNOWN
from thrifty.report.tables import Columns
from thrifty.spec import Cluster, Quantity
from thrifty.spec.units import format_bytes, format_seconds, format_usd

Row = Mapping[str, str | float]
GROUPS = {"cuda": "NVIDIA GPUs", "rocm": "AMD GPUs", "tpu": "TPUs, by the chip", "cpu": "processors, by the socket"}


def catalogue_table(rows: Iterable[Row] | None = None) -> RenderableType:
    """List the devices of the catalogue by kind: dense peaks in TFLOP/s, memory, watts, price.

    Args:
        rows: as `thrifty.hardware.catalogue_rows` gives them; asked for when left out.
    """
    listed = list(hardware.catalogue_rows() if rows is None else rows)
    parts: list[RenderableType] = []
    for kind, title in GROUPS.items():
        columns = SOCKET if kind == "cpu" else ACCELERATOR
        lines = [[cell(row) for _, cell in columns] for row in listed if row["kind"] == kind]
        if lines:
            parts += [Text(title, style="bold"), Columns([header for header, _ in columns], lines), ""]
    parts.append(
        Text(
            "Peaks are dense, in TFLOP/s; memory bandwidth in TB/s, of a node's link in GB/s, one way. $/h: the lowest "
            "price known of one device with its share of the node. Ask for them as h100:8 or a100-80g:8x128 (devices "
            "a node x nodes). Each number's source: --json.",
            style="dim",
        )
    )
    return Group(*parts)


def cluster_table(cluster: Cluster) -> RenderableType:
    """Show what is known of a cluster, each number with its source."""
    device = cluster.device
    known: list[tuple[str, str, Quantity | str]] = [
        (f"peak, {name}", f"{each.value / 1e12:,.4g} TFLOP/s", each) for name, each in device.flops_per_second.items()
    ]
    known += [
        ("memory", format_bytes(device.memory_bytes), device.memory_source),
        ("memory bandwidth", f"{device.bytes_per_second.value / 1e9:,.0f} GB/s", device.bytes_per_second),
        ("power, idle", f"{device.idle_watts.value:,.0f} W", device.idle_watts),
        ("power, busy", f"{device.busy_watts.value:,.0f} W", device.busy_watts),
    ]
    for where, link in (("in a node", cluster.intra), ("between nodes", cluster.inter)):
        speed = f"{link.bytes_per_second.value / 1e9:,.4g} GB/s"
        known.append((f"link {where}, {link.name}", speed, link.bytes_per_second))
        known.append((f"its delay {where}", format_seconds(link.latency_s.value), link.latency_s))
    known += [
        ("host memory of a node", format_bytes(cluster.host_memory_bytes.value), cluster.host_memory_bytes),
        ("host power of a node", f"{cluster.host_watts.value:,.0f} W", cluster.host_watts),
        ("PUE", f"{cluster.pue.value:g}", cluster.pue),
        ("grid", f"{cluster.grid_kg_per_kwh.value:g} kg/kWh", cluster.grid_kg_per_kwh),
        ("price of an hour", _usd(cluster.usd_per_hour.value), cluster.usd_per_hour),
        ("spot price", _usd(cluster.spot_usd_per_hour.value), cluster.spot_usd_per_hour),
    ]
    nodes = f" in {cluster.nodes:,} nodes of {cluster.per_node:,}" if cluster.nodes > 1 else ""
    sources = dict.fromkeys(each if isinstance(each, str) else each.source for _, _, each in known)
    numbers = {source: str(number) for number, source in enumerate(sources, 1)}
    lines = [[what, value, numbers[each if isinstance(each, str) else each.source]] for what, value, each in known]
    nodes = f" in {cluster.nodes:,} nodes of {cluster.per_node:,}" if cluster.nodes > 1 else ""
    return Group(
        Text(f"{cluster.name} · {cluster.devices:,} x {device.name}{nodes}", style="bold"),
        Columns(["~", ">", ">source"], lines),
        "",
        Columns([">", "~source"], [[number, source] for source, number in numbers.items()]),
    )


def _tera(*names: str) -> Callable[[Row], str]:
    """Print the first rate a row has, in TFLOP/s."""

    def cell(row: Row) -> str:
        value = next((float(row[name]) for name in names if row[name]), 0.0) / 1e12
        return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}" if value else UNKNOWN

    return cell


def _link(row: Row) -> str:
    return f"{float(row['link_bytes_per_second']) / 1e9:.0f}" if float(row["per_node"]) > 1 else UNKNOWN


def _usd(value: float) -> str:
    return format_usd(value) if value else UNKNOWN


_NAME: list[tuple[str, Callable[[Row], str]]] = [
    ("", lambda row: str(row["name"])),
    (">memory", lambda row: format_bytes(float(row["memory_bytes"]))),
    (">TB/s", lambda row: f"{float(row['bytes_per_second']) / 1e12:.2f}"),
    (">fp32", _tera("fp32")),
]
_POWER_AND_PRICE: list[tuple[str, Callable[[Row], str]]] = [
    (">W", lambda row: f"{float(row['busy_watts']):.0f}"),
    (">$/h", lambda row: _usd(float(row["usd_per_hour"]))),
]
ACCELERATOR = [
    *_NAME,
    (">16-bit", _tera("bf16", "fp16")),
    (">fp8", _tera("fp8")),
    (">node", lambda row: f"{round(float(row['per_node'])):,}"),
    (">link", _link),
    *_POWER_AND_PRICE,
    (">spot", lambda row: _usd(float(row["spot_usd_per_hour"]))),
]
SOCKET = [*_NAME, (">bf16", _tera("bf16")), *_POWER_AND_PRICE]
