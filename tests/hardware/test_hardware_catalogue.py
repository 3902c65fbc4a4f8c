"""The catalogue: names find their rows, and what is derived follows from the row by the formula it states."""

from __future__ import annotations

import csv
import re
from importlib import resources

import pytest

from thrifty.hardware import catalogue
from thrifty.hardware.probe import Probe


def a_probe(identity: str, *, cores: int = 2, isa: tuple[str, ...] = (), clock_hz: float = 0.0) -> Probe:
    return Probe(
        name=identity.partition(";")[0],
        identity=identity,
        architecture="x86_64",
        cores=cores,
        physical_cores=cores,
        cores_source="",
        isa=isa,
        cache_bytes={},
        clock_hz=clock_hz,
        installed_bytes=1 << 33,
        memory_bytes=1 << 33,
        memory_source="",
    )


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("Intel(R) Xeon(R) Platinum 8488C; GenuineIntel family 6 model 143", "Sapphire"),
        ("Intel(R) Xeon(R) Processor; GenuineIntel family 6 model 143", "Sapphire"),
        ("Intel(R) Xeon(R) Processor @ 2.60GHz; GenuineIntel family 6 model 106", "Ice Lake"),
        ("Intel(R) Xeon(R) CPU @ 2.80GHz; GenuineIntel family 6 model 85", "Cascade"),
        ("AMD EPYC 9R14; AuthenticAMD family 25 model 17", "Genoa"),
        ("AMD EPYC; AuthenticAMD family 25 model 17", "Genoa"),
        ("AMD EPYC; AuthenticAMD family 25 model 1", "Milan"),
        ("AMD EPYC 7R13 Processor; AuthenticAMD family 25 model 1", "Milan"),
        ("Arm Neoverse-V1", "Graviton3"),
        ("Apple M1", "Apple M1"),
        ("Apple M1 Max", "Apple M1 Max"),
        ("Apple M1 Pro", None),
        ("INTEL(R) XEON(R) 6980P; GenuineIntel family 6 model 173", "Granite"),
        ("AMD EPYC 9R45; AuthenticAMD family 26 model 2", "Turin"),
        ("Arm Neoverse-V2", "Graviton4"),
        ("Intel(R) Core(TM) i7-10700K CPU @ 3.80GHz; GenuineIntel family 6 model 165", "i7-10700K"),
    ],
)
def test_names_find_their_row(name: str, listed: str | None) -> None:
    row = catalogue.find(name)
    assert (row is None) == (listed is None)
    assert row is None or (listed or "") in row.name


def test_every_row_is_whole() -> None:
    lines = resources.files("thrifty.hardware").joinpath("catalogue.csv").read_text(encoding="utf-8").splitlines()
    assert len(list(csv.DictReader(lines))) == len(catalogue.rows()) == len({row.pattern for row in catalogue.rows()})
    for row in catalogue.rows():
        re.compile(row.pattern)
        assert row.source
        assert row.gigabytes_per_second > 0
        assert row.cores > 0
        assert row.logical >= row.cores
        assert 1 < row.clock_ghz < 7
        assert row.memory_gib > 0
        assert row.idle_watts <= row.busy_watts
        assert row.isa
        assert re.search(row.pattern, row.identity), "its own name finds it, and no row before does"
        assert catalogue.find(row.identity) == row
        assert all(quantity.value > 0 for quantity in row.peaks().values())


def test_a_share_of_a_listed_socket_is_derived_and_says_so() -> None:
    sheet = catalogue.cpu_datasheet(a_probe("AMD EPYC; AuthenticAMD family 25 model 17", cores=2))
    assert sheet.flops_per_second["fp32"].value == pytest.approx(2 * 3.7e9 * 32)
    assert sheet.flops_per_second["bf16"].value == pytest.approx(2 * 3.7e9 * 64)
    assert sheet.bytes_per_second["memory"].value == pytest.approx(460.8e9 * 2 / 96)
    assert sheet.busy_watts.value == pytest.approx(360 * 2 / 96)
    assert 0 < sheet.idle_watts.value < sheet.busy_watts.value
    for quantity in (*sheet.flops_per_second.values(), *sheet.bytes_per_second.values(), sheet.busy_watts):
        assert quantity.source.startswith("derived: ")
        assert "9654" in quantity.source
    assert sheet.idle_watts.source.startswith("declared: 30% of the busy watts")


def test_more_cores_than_a_socket_has_no_more_watts_than_a_socket() -> None:
    sheet = catalogue.cpu_datasheet(a_probe("AMD EPYC 9654; AuthenticAMD family 25 model 17", cores=500))
    assert sheet.busy_watts.value == 360
    assert sheet.bytes_per_second["memory"].value == pytest.approx(460.8e9)


def test_a_processor_whose_maker_gives_no_peak_has_that_of_its_vector_units_and_says_so() -> None:
    peak = catalogue.find("Apple M2").peaks()["fp32"]  # type: ignore[union-attr]
    assert peak.value == pytest.approx(8 * 3.49e9 * 24)
    assert "vector units alone" in peak.source
    assert catalogue.cpu_datasheet(a_probe("Apple M2")).flops_per_second == {}, "what is here is measured instead"


def test_an_unlisted_processor_is_taken_by_its_instruction_sets() -> None:
    sheet = catalogue.cpu_datasheet(a_probe("Foo 9", isa=("avx2", "fma"), clock_hz=3e9))
    assert sheet.flops_per_second["fp32"].value == pytest.approx(2 * 3e9 * 32)
    assert "not listed" in sheet.flops_per_second["fp32"].source
    assert (sheet.name, sheet.bytes_per_second) == ("", {})
    assert sheet.busy_watts.value == 20
    assert catalogue.cpu_datasheet(a_probe("Foo 9", isa=("avx2", "fma"))).flops_per_second == {}, "no clock, no peak"


@pytest.mark.parametrize(
    ("isa", "rates"),
    [
        (("avx2", "fma", "avx512f"), {"fp32": 64}),
        (("avx512f", "avx512_bf16"), {"fp32": 64, "bf16": 128}),
        (("avx512f", "avx512_bf16", "amx_bf16"), {"fp32": 64, "bf16": 1024}),
        (("asimd",), {"fp32": 16}),
        (("asimd", "sve", "bf16"), {"fp32": 32, "bf16": 128}),
        ((), {}),
    ],
)
def test_flops_a_cycle(isa: tuple[str, ...], rates: dict[str, int]) -> None:
    assert catalogue.flops_per_cycle(isa) == rates
