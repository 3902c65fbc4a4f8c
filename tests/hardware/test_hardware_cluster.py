"""Clusters by name: counts fill nodes, case does not matter, and what cannot be meant is told with its mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty import hardware
from thrifty.errors import JobError
from thrifty.hardware.accelerators import sheets
from thrifty.spec.device import Cluster, Quantity

PROMISED = """
xeon-avx2 xeon-avx512 xeon-amx epyc m1 m4 graviton v100 v100-16g v100-32g t4 a10g l4 l40s a100-40g a100-80g
a100-pcie-40g a100-pcie-80g rtx3090 4090 rtx-5090 a6000 h100 h100-sxm h100-pcie h200 b200 b300 gb200 gb300
mi250x mi300x tpu-v3 tpu-v4 v5e v5p trillium
"""


@pytest.fixture(autouse=True)
def _nothing_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THRIFTY_PRICES", raising=False)
    monkeypatch.delenv("THRIFTY_ENERGY", raising=False)


@pytest.mark.parametrize(
    ("text", "per_node", "nodes"),
    [
        ("h100", 1, 1),
        ("h100:8", 8, 1),
        ("h100:3", 3, 1),
        ("H100:8", 8, 1),
        (" NVIDIA H100 : 16 ", 8, 2),
        ("a100-80g:8x128", 8, 128),
        ("a100-80g:8 × 128", 8, 128),
        ("a100-80g:1024", 8, 128),
        ("a100-80g:4x2", 4, 2),
        ("gb200:72", 72, 1),
        ("gb200:144", 72, 2),
        ("gb200:256", 64, 4),
        ("tpu-v5e:256x32", 256, 32),
        ("v5p:8192", 8192, 1),
        ("rtx 4090:2", 2, 1),
        ("epyc:4", 1, 4),
    ],
)
def test_counts_fill_nodes(text: str, per_node: int, nodes: int) -> None:
    cluster = hardware.find_cluster(text)
    assert (cluster.per_node, cluster.nodes) == (per_node, nodes)
    assert cluster.name == text.strip()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("h10:8", r"unknown device 'h10'. Did you mean 'h100'\? Nearest: .*my-chip.yaml"),
        ("zzzzzz", r"unknown device 'zzzzzz'. All: thrifty hardware --all"),
        (":8", r"no device is named in ':8'"),
        ("", r"no device is named"),
        ("h100:", r"'' in 'h100:' is not a number of devices. Write devices, as in h100:16"),
        ("h100:eight", r"'eight' in 'h100:eight' is not a number of devices"),
        ("h100:-8", r"'-8' .* is not a number of devices"),
        ("h100:8x", r"'8x' .* is not a number of devices"),
        ("h100:1.5", r"'1.5' .* is not a number of devices"),
        ("h100:0", r"'h100:0' asks for no devices"),
        ("h100:8x0", r"'h100:8x0' asks for no devices"),
        ("h100:12", r"12 devices do not divide into nodes of 8. Ask for 8 or 16, or .* h100:6x2"),
        ("gb200:76", r"76 devices do not divide into nodes of 72 or 68 or 64"),
        ("h100:16x2", r"'h100:16x2' asks for 16 devices a node; NVLink 4 joins 8. Ask for h100:32"),
        ("h100:8x999999", r"'h100:8x999999' asks for more than 1,000,000 devices"),
        ("h100:" + "9" * 5000, r"asks for more than 1,000,000 devices"),
        ("missing.yaml:8", r"cannot read the hardware file 'missing.yaml': No such file"),
    ],
)
def test_what_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        hardware.find_cluster(text)


@given(st.text(max_size=40))
def test_any_text_is_a_cluster_or_told_what_is_wrong(text: str) -> None:
    try:
        cluster = hardware.find_cluster(text)
    except JobError as error:
        assert str(error)
    else:
        assert cluster.devices > 0


@given(st.sampled_from(sorted(sheets())), st.integers(1, 4096))
def test_a_count_is_met_exactly_or_refused_with_counts_that_are_not(name: str, count: int) -> None:
    try:
        cluster = hardware.find_cluster(f"{name}:{count}")
    except JobError as error:
        below, above, other = re.search(r"Ask for (\d+) or (\d+), .* as in (\S+)\.$", str(error)).groups()  # type: ignore[union-attr]
        assert int(below) < count < int(above)
        assert hardware.find_cluster(f"{name}:{below}").devices == int(below)
        assert hardware.find_cluster(f"{name}:{above}").devices == int(above)
        assert hardware.find_cluster(other).devices == count
    else:
        assert cluster.devices == count
        assert cluster.per_node <= sheets()[name].value("node.devices")


@given(st.sampled_from(sorted(sheets())), st.integers(1, 8), st.integers(1, 100))
def test_both_counts_are_taken_as_they_are(name: str, per_node: int, nodes: int) -> None:
    if per_node > sheets()[name].value("node.devices"):
        return
    cluster = hardware.find_cluster(f"{name}:{per_node}x{nodes}")
    assert (cluster.per_node, cluster.nodes, cluster.devices) == (per_node, nodes, per_node * nodes)


def _quantities(cluster: Cluster) -> dict[str, Quantity]:
    device = cluster.device
    return {
        **device.flops_per_second,
        "bandwidth": device.bytes_per_second,
        "idle": device.idle_watts,
        "busy": device.busy_watts,
        "intra": cluster.intra.bytes_per_second,
        "intra latency": cluster.intra.latency_s,
        "inter": cluster.inter.bytes_per_second,
        "inter latency": cluster.inter.latency_s,
        "host memory": cluster.host_memory_bytes,
        "host watts": cluster.host_watts,
        "pue": cluster.pue,
        "grid": cluster.grid_kg_per_kwh,
        "usd": cluster.usd_per_hour,
        "spot": cluster.spot_usd_per_hour,
        "device usd": device.usd_per_hour,
    }


@pytest.mark.parametrize("cluster", hardware.catalogue_clusters(), ids=lambda cluster: cluster.name)
def test_every_number_of_the_catalogue_has_a_source_and_lies_in_its_physical_range(cluster: Cluster) -> None:
    found = _quantities(cluster)
    assert all(len(each.source) > 10 for each in found.values())
    assert cluster.device.memory_source
    known = (
        "datasheet",
        "derived",
        "declared",
        "re-read",
        "reported",
        "NVIDIA",
        "AWS",
        "Google",
        "How to Scale",
        "95 GB",
    )
    for name in (*cluster.device.flops_per_second, "bandwidth", "busy", "intra", "inter", "host memory", "host watts"):
        assert found[name].source.startswith(known), (name, found[name].source)
    device = cluster.device
    assert 4 << 30 <= device.memory_bytes <= 4 << 40
    assert 4e10 <= device.bytes_per_second.value <= 2e13
    assert 0 < device.idle_watts.value < device.busy_watts.value <= 1500
    assert 1e8 <= cluster.inter.bytes_per_second.value <= cluster.intra.bytes_per_second.value <= 1e12
    assert 5e-7 <= cluster.intra.latency_s.value <= cluster.inter.latency_s.value <= 1e-4
    assert 0 < cluster.host_watts.value <= 1.2 * cluster.devices * device.busy_watts.value + 100
    assert 16e9 <= cluster.host_memory_bytes.value <= 4e12
    assert 1 <= cluster.pue.value <= 2
    assert 0.01 <= cluster.grid_kg_per_kwh.value <= 1
    assert 0 <= cluster.usd_per_hour.value <= 25
    assert cluster.usd_per_hour.value or "no price known" in cluster.usd_per_hour.source
    spot = cluster.spot_usd_per_hour
    assert 0 < spot.value < cluster.usd_per_hour.value or spot.source.startswith("no spot price")
    assert (device.measured_on, bool(device.calibration)) == ("", True)


@pytest.mark.parametrize("cluster", hardware.catalogue_clusters(), ids=lambda cluster: cluster.name)
def test_lower_precision_is_never_slower(cluster: Cluster) -> None:
    peaks = {name: each.value for name, each in cluster.device.flops_per_second.items()}
    assert 1e11 <= peaks["fp32"] <= 2e14
    assert cluster.device.kind == "cpu" or {"bf16", "fp16"} & set(peaks)
    order = [peaks[name] for name in ("fp32", "tf32", "bf16", "fp8", "fp4") if name in peaks]
    assert order == sorted(order)
    assert peaks.get("bf16", peaks.get("fp16")) == peaks.get("fp16", peaks.get("bf16"))
    # half the width, twice the rate: what sparse figures, forgotten to be halved, would break
    if cluster.device.kind == "cuda" and "fp8" in peaks:
        assert peaks["fp8"] == pytest.approx(2 * peaks["bf16"], rel=0.02)


def test_generations_are_ordered() -> None:
    order = ["v100", "a100", "h100", "h200", "b200", "gb200"]
    found = [hardware.find_device(name) for name in order]
    bandwidths = [device.bytes_per_second.value for device in found]
    assert bandwidths == sorted(bandwidths)
    rates = [(device.flops_per_second.get("bf16") or device.flops_per_second["fp16"]).value for device in found]
    assert rates == sorted(rates)


def test_names_and_aliases_are_of_one_device_each() -> None:
    names = [name for key, sheet in sheets().items() for name in (key, *sheet.aliases)]
    assert len(names) == len(set(names))
    assert all(hardware.find_cluster(name).device for name in names)


def test_the_catalogue_holds_what_is_promised() -> None:
    for name in PROMISED.split():
        assert hardware.find_device(name).memory_bytes > 0
    assert "amx_bf16" in hardware.find_device("xeon-amx").isa
    assert "avx512f" not in hardware.find_device("xeon-avx2").isa
    assert len(hardware.catalogue_devices()) == len(hardware.catalogue_rows()) == len(sheets())


def test_a_part_of_a_node_has_its_share_of_the_host() -> None:
    whole, part = hardware.find_cluster("h100:8"), hardware.find_cluster("h100:2")
    assert part.host_memory_bytes.value == pytest.approx(whole.host_memory_bytes.value / 4)
    assert part.host_watts.value == pytest.approx(whole.host_watts.value / 4)
    assert "2 of a host's 8 devices" in part.host_watts.source
    # the host of a DGX H100 at full load: what its 8.4 kW at most (arXiv 2412.08602) leave beside eight GPUs of 700 W
    assert whole.host_watts.value == pytest.approx(8400 - 8 * 700, rel=0.01)
    assert "16 hosts of 4 devices" in hardware.find_cluster("tpu-v4:64").host_watts.source


def test_nodes_that_talk_to_others_pay_for_the_switches_between() -> None:
    one, two = hardware.find_cluster("h100:8"), hardware.find_cluster("h100:16")
    assert two.host_watts.value == pytest.approx(one.host_watts.value + 8 * 120)
    assert "of the network between nodes" in two.host_watts.source


def test_prices_follow_the_size_of_the_order() -> None:
    small, large = hardware.find_cluster("h100:8"), hardware.find_cluster("h100:512")
    assert 0 < small.usd_per_hour.value < large.usd_per_hour.value, "small clouds do not join 512"
    assert small.spot_usd_per_hour.value == 0
    assert "no spot price below" in small.spot_usd_per_hour.source


def test_own_prices_and_place_hold_for_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.csv"
    own.write_text(
        "pattern,kind,instance,cores,memory_gib,usd_per_hour,region,date,source,market,devices\n"
        "H100,cuda,ours,,,1.5,Delft,2026-11,contract,,\n"
        "H100,cuda,ours,,,0.5,Delft,2026-11,contract,spot,\n"
        "TPU v4,tpu,ours,,,0.7,Delft,2026-11,contract,,\n"
    )
    monkeypatch.setenv("THRIFTY_PRICES", str(own))
    monkeypatch.setenv("THRIFTY_ENERGY", "sweden")
    cluster = hardware.find_cluster("h100:1024")
    assert (cluster.usd_per_hour.value, cluster.spot_usd_per_hour.value) == (1.5, 0.5)
    assert hardware.find_cluster("tpu-v4").usd_per_hour.value == 0.7
    assert cluster.grid_kg_per_kwh.value == pytest.approx(0.036)
    assert cluster.grid_kg_per_kwh.source.startswith("sweden, 2024")
