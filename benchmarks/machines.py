"""The clusters on which the published tables were measured: datasheet peaks, links as the sources describe them."""

from __future__ import annotations

from thrifty.spec.device import Cluster, Device, DeviceKind, Link, Quantity

GIB = 2**30


def _said(value: float, source: str) -> Quantity:
    return Quantity(value=value, source=source)


def _device(
    name: str, kind: DeviceKind, cores: int, gib: float, terabytes: float, source: str, calibration: str, **tera: float
) -> Device:
    rates = {precision: _said(value * 1e12, source) for precision, value in tera.items()}
    bandwidth = _said(terabytes * 1e12, source)
    unused = _said(0.0, "not used for time")
    return Device(
        name=name,
        kind=kind,
        cores=cores,
        isa=(),
        cache_bytes={},
        memory_bytes=int(gib * GIB),
        memory_source=source,
        flops_per_second=rates,
        bytes_per_second=bandwidth,
        datasheet_flops_per_second=rates,
        datasheet_bytes_per_second={"memory": bandwidth},
        idle_watts=unused,
        busy_watts=unused,
        usd_per_hour=unused,
        measured_on="",
        calibration=calibration,
    )


_A100 = "NVIDIA A100 datasheet"
_H100 = "NVIDIA H100 datasheet, dense"
_BLACKWELL = "NVIDIA Blackwell datasheets, dense"
_TPU = "cloud.google.com/tpu/docs system architecture"
DEVICES = {
    "v100-16g": _device(
        "V100 SXM2 16 GB", "cuda", 80, 16, 0.9, "NVIDIA V100 datasheet", "v100", fp16=125, bf16=15.7, fp32=15.7
    ),
    "v100-32g": _device(
        "V100 SXM2 32 GB", "cuda", 80, 32, 0.9, "NVIDIA V100 datasheet", "v100", fp16=125, bf16=15.7, fp32=15.7
    ),
    "a100-40g": _device("A100 SXM 40 GB", "cuda", 108, 40, 1.555, _A100, "a100", bf16=312, fp16=312, fp32=19.5),
    "a100-80g": _device("A100 SXM 80 GB", "cuda", 108, 80, 2.039, _A100, "a100", bf16=312, fp16=312, fp32=19.5),
    "h100": _device("H100 SXM 80 GB", "cuda", 132, 80, 3.35, _H100, "h100", bf16=989.4, fp16=989.4, fp8=1978.9, fp32=67),
    "h100-96g": _device(
        "H100 96 GB at 500 W", "cuda", 132, 95, 2.4, "reference/planners.md 5.3", "h100", bf16=989.4, fp8=1978.9, fp32=67
    ),
    "b200": _device("B200", "cuda", 148, 180, 8.0, _BLACKWELL, "blackwell", bf16=2250, fp16=2250, fp8=4500, fp32=80),
    "b300": _device("B300", "cuda", 148, 270, 8.0, _BLACKWELL, "blackwell", bf16=2250, fp16=2250, fp8=4500, fp32=80),
    "gb200": _device("GB200", "cuda", 148, 186, 8.0, _BLACKWELL, "blackwell", bf16=2500, fp16=2500, fp8=5000, fp32=80),
    "gb300": _device("GB300", "cuda", 148, 279, 8.0, _BLACKWELL, "blackwell", bf16=2500, fp16=2500, fp8=5000, fp32=80),
    "rtx-4090": _device("RTX 4090", "cuda", 128, 24, 1.008, "NVIDIA Ada whitepaper", "ada", bf16=165.2, fp16=165.2, fp32=82.6),
    "rtx-a6000": _device("RTX A6000", "cuda", 84, 48, 0.768, "NVIDIA GA102 whitepaper", "a100", bf16=154.8, fp16=154.8, fp32=38.7),
    "tpu-v4": _device("TPU v4", "tpu", 2, 32, 1.228, _TPU, "tpu", bf16=275, fp32=68),
    "tpu-v5e": _device("TPU v5e", "tpu", 1, 16, 0.819, _TPU, "tpu", bf16=197, fp32=49),
    "tpu-v5p": _device("TPU v5p", "tpu", 2, 95, 2.765, _TPU, "tpu", bf16=459, fp32=114),
    "tpu-v6e": _device("TPU v6e", "tpu", 1, 32, 1.64, _TPU, "tpu", bf16=918, fp32=229),
}  # fmt: skip


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
        device=DEVICES[device],
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
        count, _, slice_name = hardware.partition(",")[2].strip().partition("x ")
        per_slice = chips
        if slice_name:
            size = int(slice_name.rsplit("-", 1)[-1])
            # v4-N and v5p-N count cores, two a chip.
            per_slice = size // (2 if key in ("v4", "v5p") else 1)
            assert int(count) * per_slice >= devices
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
        return cluster("rtx-4090", devices, per_node=8, intra=25e9, inter=3e9)
    if "a6000" in said:
        return cluster("rtx-a6000", devices, per_node=8, intra=25e9, inter=3e9)
    return None
