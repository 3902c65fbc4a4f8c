"""The clusters on which the published tables were measured: catalogue devices, links as the sources describe them."""

from __future__ import annotations

from thrifty.hardware.cluster import find_device
from thrifty.spec.device import Cluster, Link, Quantity

GIB = 2**30


def _said(value: float, source: str) -> Quantity:
    return Quantity(value=value, source=source)


def cluster(
    device: str, devices: int, *, per_node: int, intra: float, inter: float, name: str = "", latency_s: float = 5e-6
) -> Cluster:
    """Make a cluster of at least ``devices`` devices; bandwidths in bytes a second a device sends, one way.

    >>> cluster("a100-80g", 1024, per_node=8, intra=300e9, inter=25e9).nodes
    128
    """
    per_node = min(per_node, devices)
    nodes = -(-devices // per_node)
    unused = _said(0.0, "not used for time")
    said = name or "as the table's source describes"
    return Cluster(
        name=f"{device}:{per_node}x{nodes}",
        device=find_device(device),
        per_node=per_node,
        nodes=nodes,
        intra=Link(name="in the node", bytes_per_second=_said(intra, said), latency_s=_said(latency_s, "assumed")),
        inter=Link(
            name="between nodes", bytes_per_second=_said(inter, said), latency_s=_said(4 * latency_s, "assumed")
        ),
        host_memory_bytes=unused,
        host_watts=unused,
        pue=_said(1.0, "not used for time"),
        grid_kg_per_kwh=unused,
        usd_per_hour=unused,
        spot_usd_per_hour=unused,
    )


def _tpu(hardware: str, devices: int) -> Cluster | None:
    # Chips of a slice share the inter-chip interconnect; slices are joined by the data-centre network, some 100 Gb/s a
    # host of four (v4, v5p) or eight (v5e, v6e) chips.
    for key, bandwidth, chips, host in (
        ("v5e", 200e9, 256, 8),
        ("v5p", 600e9, 8960, 4),
        ("v4", 300e9, 4096, 4),
        ("v6e", 448e9, 256, 8),
    ):
        if key not in hardware:
            continue
        _, _, slice_name = hardware.partition(",")[2].strip().partition("x ")
        per_slice = chips
        if slice_name:
            size = int(slice_name.rsplit("-", 1)[-1])
            # v4-N and v5p-N count cores, two a chip.
            per_slice = max(1, size // (2 if key in ("v4", "v5p") else 1))
        return cluster(f"tpu-{key}", devices, per_node=min(per_slice, devices), intra=bandwidth, inter=100e9 / 8 / host)
    return None


def machine(table: str, hardware: str, devices: int) -> Cluster | None:
    """Return the cluster a row was measured on, or ``None`` when the table's hardware is not known."""
    said = hardware.lower()
    if "tpu" in said or "trillium" in said:
        return _tpu(said.replace("trillium", "v6e"), devices)
    if "jean zay" in said and "v100" in said:
        return cluster("v100-16g" if "16gb" in said else "v100-32g", devices, per_node=4, intra=150e9, inter=12.5e9)
    if "jean zay" in said:
        return cluster("a100-80g", devices, per_node=8, intra=300e9, inter=4 * 12.5e9 / 8)
    if "v100" in said:
        return cluster("v100-16g" if "16gb" in said else "v100-32g", devices, per_node=8, intra=150e9, inter=3.1e9)
    for key in ("gb300", "gb200"):
        if key in said:  # 72 devices share one NVLink domain, of which the tables use 64
            return cluster(key, devices, per_node=min(64, devices), intra=900e9, inter=50e9)
    for key in ("b300", "b200"):
        if key in said:
            return cluster(key, devices, per_node=8, intra=900e9, inter=(100e9 if key == "b300" else 50e9))
    if "h100" in said:
        device = "h100-96g" if "95gb" in said or "96gb" in said or table.startswith("torchtitan") else "h100"
        return cluster(device, devices, per_node=8, intra=450e9, inter=25e9 if "a3" in said else 50e9)
    if "a100" in said:
        device = "a100-40g" if "40" in said.split("a100", 1)[1][:6] else "a100-80g"
        # vTrain's nodes share 800 Gb/s; the rest are DGX or the like, with 200 Gb/s a device.
        return cluster(device, devices, per_node=8, intra=300e9, inter=12.5e9 if table.startswith("vtrain") else 25e9)
    if "4090" in said:
        return cluster("rtx4090", devices, per_node=8, intra=25e9, inter=3e9)
    if "a6000" in said:
        return cluster("a6000", devices, per_node=8, intra=25e9, inter=3e9)
    return None
