"""A device of one's own from a file: whole, like another, and every way to get it wrong told with its mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty import hardware
from thrifty.errors import JobError
from thrifty.hardware.chip import MAX_CHIP_BYTES
from thrifty.hardware.sheet import NEEDED

WHOLE = """
name: Chip of ours
kind: tpu
flops: {fp32: 60 TFLOP/s, bf16: 1500 TFLOP/s, fp8: 3 PFLOP/s}
memory: 192 GiB
bandwidth: 6 TB/s
idle: 100 W
busy: 0.9 kW
price: 4.00 USD/h
calibration: tpu
node:
  devices: 16
  link: {name: our ring, bandwidth: 600 GB/s, latency: 2us}
  network: {bandwidth: 400 Gbit/s, latency: 8 us}
  host: {memory: 2TB, power: 2kW}
"""


def written(folder: Path, text: str, name: str = "my-chip.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def told(folder: Path, text: str) -> str:
    with pytest.raises(JobError) as caught:
        hardware.find_cluster(written(folder, text))
    return str(caught.value)


def test_a_whole_file(tmp_path: Path) -> None:
    cluster = hardware.find_cluster(written(tmp_path, WHOLE) + ":64")
    device = cluster.device
    assert (cluster.per_node, cluster.nodes) == (16, 4)
    assert (device.name, device.kind, device.calibration) == ("Chip of ours", "tpu", "tpu")
    assert {name: each.value for name, each in device.flops_per_second.items()} == {
        "fp32": 6e13,
        "bf16": 1.5e15,
        "fp8": 3e15,
    }
    assert device.memory_bytes == 192 << 30
    assert device.busy_watts.value == 900
    assert (cluster.intra.name, cluster.inter.name) == ("our ring", "network")
    assert cluster.inter.bytes_per_second.value == 5e10
    assert cluster.intra.latency_s.value == pytest.approx(2e-6)
    assert cluster.host_watts.value == 2000
    assert (cluster.usd_per_hour.value, cluster.spot_usd_per_hour.value) == (4, 0)
    for quantity in (
        *device.flops_per_second.values(),
        device.busy_watts,
        cluster.inter.latency_s,
        cluster.usd_per_hour,
    ):
        assert quantity.source == "from my-chip.yaml"
    assert hardware.find_device(written(tmp_path, WHOLE)) == device


def test_like_another_but_for_some_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, "like: H100\nflops: {bf16: 2000 TFLOP/s}\nnode: {network: {bandwidth: 100 GB/s}}\n")
    ours, theirs = hardware.find_cluster(f"{path}:8x4"), hardware.find_cluster("h100:8x4")
    assert ours.device.flops_per_second["bf16"].value == 2e15
    assert ours.device.flops_per_second["bf16"].source == "from my-chip.yaml"
    assert ours.device.flops_per_second["fp8"] == theirs.device.flops_per_second["fp8"]
    assert ours.inter.bytes_per_second.value == 1e11
    assert (ours.intra, ours.host_watts, ours.device.calibration) == (theirs.intra, theirs.host_watts, "h100")
    assert ours.device.name == "my-chip"
    assert ours.usd_per_hour.value == theirs.usd_per_hour.value
    assert ours.usd_per_hour.source.startswith("no price in my-chip.yaml, taken as h100's: ")


def test_like_a_processor(tmp_path: Path) -> None:
    device = hardware.find_device(written(tmp_path, "like: xeon-amx\nbandwidth: 1 TB/s\n"))
    assert (device.kind, device.bytes_per_second.value) == ("cpu", 1e12)
    assert "amx_bf16" in device.isa


def test_a_node_of_the_catalogue(tmp_path: Path) -> None:
    text = "like: rtx4090\nnode: {like: dgx-h100, devices: 4}\n"
    cluster = hardware.find_cluster(written(tmp_path, text) + ":4")
    assert (cluster.intra.name, cluster.per_node) == ("NVLink 4", 4)
    assert hardware.find_cluster(written(tmp_path, "like: l4\nnode: dgx-a100\n")).intra.name == "NVLink 3"
    assert "unknown node 'dgx-h10'. Did you mean 'dgx-h100'?" in told(tmp_path, "like: l4\nnode: dgx-h10\n")
    assert "unknown node" in told(tmp_path, "like: l4\nnode: {like: [1]}\n")


def test_the_rated_power_of_a_system_replaces_that_of_its_host(tmp_path: Path) -> None:
    power = hardware.find_cluster(written(tmp_path, "like: l40s\nnode: {host: {system: 6 kW}}\n") + ":8").host_watts
    assert power.value == pytest.approx(0.61 * (6000 - 8 * 350))
    assert "no more than its devices' own watts" in told(tmp_path, "like: l40s\nnode: {host: {system: 2 kW}}\n")


def test_each_missing_number_is_named_with_its_purpose_and_an_example(tmp_path: Path) -> None:
    said = told(tmp_path, "name: nothing\n")
    assert said.startswith("my-chip.yaml lacks 13 numbers: flops.bf16 (dense peak of bf16 matrix products, such as 989")
    for path in (*NEEDED, "flops.fp32", "flops.bf16"):
        assert f"{path} (" in said
    assert said.endswith("or take them from a known device, such as: like: h100.")
    for line in ("memory: 192 GiB", "idle: 100 W", "  host: {memory: 2TB, power: 2kW}"):
        assert "lacks" in told(tmp_path, WHOLE.replace(line, ""))
    assert "lacks 1 number: node.link.latency (of one message within the node, such as 3 us)" in told(
        tmp_path, WHOLE.replace("600 GB/s, latency: 2us", "600 GB/s")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memmory: 80 GiB", r"unknown key 'memmory' \(did you mean 'memory'\?\)"),
        ("flops: {bf61: 9 TFLOP/s}", r"unknown key 'flops.bf61' \(did you mean 'flops.bf16'\?\)"),
        (
            "node: {link: {bandwith: 9 GB/s}}",
            r"unknown key 'node.link.bandwith' \(did you mean 'node.link.bandwidth'\?\)",
        ),
        ("latency: 3us", r"unknown key 'latency' \(did you mean 'node.link.latency'\?\)"),
        ("1: 2", r"unknown key '1'"),
        ("memory: 80", r"memory: memory needs a number and a unit, got 80; write it like '4GiB'"),
        ("memory: 80 gib", r"unknown unit 'gib' of memory in '80 gib'; did you mean 'GiB'\?"),
        ("bandwidth: 3 TFLOP/s", r"bandwidth: unknown unit 'TFLOP/s' of a bandwidth"),
        ("bandwidth: 3350 gb/s", r"did you mean 'GB/s'\?"),
        ("busy: -700 W", r"busy: power must be above zero, got '-700 W'"),
        ("busy: 0 W", r"busy: power must be above zero"),
        ("busy: .nan", r"busy: power needs a number and a unit, got nan"),
        ("busy: 1e999 W", r"busy: power must be above zero, got '1e999 W'"),
        ("busy: 10 W", r"idle power 75 W is above busy power 10 W"),
        ("node: {devices: 0}", r"node.devices: a count is a whole number from 1 to 1,000,000, got 0"),
        ("node: {devices: 2.5}", r"node.devices: a count is a whole number"),
        ("node: {devices: 8, partition: 3}", r"node.partition 3 does not divide node.devices 8"),
        ("node: 7", r"'node' holds '7', not keys and values"),
        ("flops: [1, 2]", r"'flops' holds list, not a text or a number"),
        ("memory: {a: 1}", r"'memory' holds dict, not a text or a number"),
        ("kind: gpu", r"unknown kind 'gpu'. Known: cuda, rocm, tpu, cpu"),
        ("like: h10", r"my-chip.yaml, like: unknown device 'h10'. Did you mean 'h100'"),
        ("like: [h100]", r"like: unknown device"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, text: str, said: str) -> None:
    whole = text if text.startswith("like") else f"like: h100\n{text}\n"
    with pytest.raises(JobError, match=said):
        hardware.find_cluster(written(tmp_path, whole))


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    said = told(tmp_path, "like: h100\nmemmory: 8 GiB\nbusy: 700\nbandwidth: 1 W\n")
    assert all(part in said for part in ("'memmory'", "busy: power needs", "unknown unit 'W' of a bandwidth"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds NoneType, not keys and values. The least of one is: like: h100"),
        (b"- 1\n", "holds list"),
        (b"a: [", "is not YAML"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"!!python/object/apply:os.system ['true']", "is not YAML"),
        (b"[" * 5000, "is not YAML"),
        (b"a" * (MAX_CHIP_BYTES + 1), "has 64.0 KiB, more than 64.0 KiB"),
        (b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\nmemory: [*b, *b, *b]\n", "'memory' holds list"),
        (b"node: &n {node: *n}\n", "unknown key 'node.node'|'node.node' holds dict"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "my-chip.yaml"
    path.write_bytes(content)
    with pytest.raises(JobError, match=said):
        hardware.find_cluster(str(path))


def test_a_path_that_is_none(tmp_path: Path) -> None:
    written(tmp_path, WHOLE)
    with pytest.raises(
        JobError, match=r"cannot read the hardware file '.*my-chp.yaml': No such file.*'my-chip.yaml'\?"
    ):
        hardware.find_cluster(str(tmp_path / "my-chp.yaml"))
    with pytest.raises(JobError, match="cannot read"):
        hardware.find_cluster(str(tmp_path / "nowhere" / "my-chip.yml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(JobError, match="cannot read"):
        hardware.find_cluster(str(tmp_path / "folder.yaml"))


@given(st.dictionaries(st.sampled_from([*NEEDED[:4], "flops", "node", "like", "kind", "x"]), st.text(max_size=12)))
def test_any_values_are_a_device_or_told_what_is_wrong(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str]
) -> None:
    import yaml

    path = tmp_path_factory.mktemp("chips") / "my-chip.yaml"
    path.write_text(yaml.safe_dump({"like": "h100", **values}, allow_unicode=True), encoding="utf-8")
    try:
        assert hardware.find_cluster(str(path)).devices == 1
    except JobError as error:
        assert "my-chip.yaml" in str(error)


def test_the_files_of_the_page_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "hardware.md").read_text(encoding="utf-8")
    blocks = [block.partition("\n```")[0] for block in page.split("```yaml\n")[1:]]
    files = {block.splitlines()[0].removeprefix("# "): block for block in blocks}
    assert set(files) == {"my-chip.yaml", "our-chip.yaml"}
    for name in ("my-chip.yaml", "our-chip.yaml"):
        assert hardware.find_cluster(written(tmp_path, files[name], name) + ":4").usd_per_hour.value == 4
    assert "slides of 2026-11" in hardware.find_device(str(tmp_path / "our-chip.yaml")).busy_watts.source
