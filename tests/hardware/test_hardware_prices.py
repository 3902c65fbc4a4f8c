"""Prices: the cheapest that is large enough, a user's own first, and errors that name file, line and column."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.errors import JobError
from thrifty.hardware import prices

GIB = 1 << 30
GENOA = "AMD EPYC; AuthenticAMD family 25 model 17"
HEADER = ",".join(prices.COLUMNS)


@pytest.fixture(autouse=True)
def _no_own_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prices.OVERRIDE, raising=False)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own.csv"
    monkeypatch.setenv(prices.OVERRIDE, str(path))
    return path


def test_the_cheapest_with_enough_cores_and_memory() -> None:
    small = prices.price("cpu", GENOA, cores=2, memory_bytes=4 * GIB)
    assert small.value == pytest.approx(0.10264)
    assert small.source.startswith("c7a.large on demand us-east-1, 20")
    assert small.source.endswith("override with THRIFTY_PRICES")
    assert prices.price("cpu", GENOA, cores=2, memory_bytes=5 * GIB).source.startswith("m7a.large")
    assert prices.price("cpu", GENOA, cores=2, memory_bytes=24 * GIB).source.startswith("r7a.xlarge")


@given(st.integers(1, 400), st.integers(1, 2000))
def test_a_larger_box_never_costs_less(cores: int, memory_gib: int) -> None:
    here = prices.price("cpu", GENOA, cores=cores, memory_bytes=memory_gib * GIB).value
    assert here > 0
    assert prices.price("cpu", GENOA, cores=cores + 1, memory_bytes=memory_gib * GIB).value >= here
    assert prices.price("cpu", GENOA, cores=cores, memory_bytes=(memory_gib + 1) * GIB).value >= here


def test_a_box_larger_than_any_listed_is_several() -> None:
    found = prices.price("cpu", GENOA, cores=384, memory_bytes=768 * GIB)
    assert found.source.startswith("2 x c7a.48xlarge")
    assert found.value == pytest.approx(2 * 9.85344)


def test_a_processor_that_is_not_listed() -> None:
    found = prices.price("cpu", "Foo 9; Foo family 1", cores=8, memory_bytes=16 * GIB)
    assert found.source.startswith("no price known for 'Foo 9', taken as ")
    assert found.value > 0
    gpu = prices.price("cuda", "NVIDIA Z9")
    assert (gpu.value, gpu.source) == (0, "no price known for 'NVIDIA Z9'; name one with THRIFTY_PRICES")


def test_gpus_by_name() -> None:
    assert prices.price("cuda", "Tesla T4").source.startswith("g4dn.xlarge")
    assert prices.price("cuda", "NVIDIA A100-SXM4-40GB").source.startswith("gpu_1x_a100"), "the cheapest of three"
    assert "an eighth" in prices.price("cuda", "NVIDIA H200", devices=16).source


def test_an_order_takes_an_offer_that_joins_as_many() -> None:
    one, cluster = (prices.price("cuda", "NVIDIA H100 80GB HBM3", devices=count) for count in (1, 64))
    assert one.value < cluster.value
    assert cluster.source.startswith("p5.48xlarge / 8")
    beyond = prices.price("cuda", "NVIDIA GeForce RTX 4090", devices=64)
    assert "listed for 8 that work together, not for 64" in beyond.source


def test_spot_is_a_market_of_its_own() -> None:
    spot = prices.price("cuda", "NVIDIA L4", market="spot")
    assert 0 < spot.value < prices.price("cuda", "NVIDIA L4").value
    assert "spot us-central1" in spot.source
    none = prices.price("cuda", "NVIDIA B200", market="spot")
    assert (none.value, none.source) == (0, "no spot price known for 'NVIDIA B200'; name one with THRIFTY_PRICES")
    assert prices.price("cpu", GENOA, cores=2, market="spot").value == 0


def test_every_row_has_a_price_a_date_and_a_source() -> None:
    rows = prices._rows()
    assert {row.kind for row in rows} == set(prices.KINDS)
    for row in rows:
        assert row.usd_per_hour > 0
        assert row.cores > 0
        assert row.memory_gib > 0
        assert len(row.date) == 7
        assert row.date[:2] == "20"
        assert "list price" in row.source
        assert row.market == "on demand" or "derived" in row.source


def test_own_prices_go_first(own: Path) -> None:
    own.write_text(f"{HEADER}\nEPYC,cpu,the box at home,,,0.031,Delft,2026-11,electricity and wear\n")
    found = prices.price("cpu", GENOA, cores=2, memory_bytes=24 * GIB)
    assert found.value == 0.031
    assert found.source.startswith("the box at home on demand Delft, 2026-11, electricity and wear")
    assert prices.price("cuda", "Tesla T4").source.startswith("g4dn.xlarge"), "what it does not name stays listed"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("EPYC,cpu,x,two,4,0.1,a,b,c", r"own.csv, line 2, column 'cores': 'two' is not a whole number"),
        ("EPYC,cpu,x,2,-4,0.1,a,b,c", r"own.csv, line 2, column 'memory_gib': '-4' is not"),
        ("EPYC,cpu,x,2,4,,a,b,c", r"own.csv, line 2, column 'usd_per_hour': '' is not US dollars"),
        ("EPYC,cpu,x,2,4,nan,a,b,c", r"own.csv, line 2, column 'usd_per_hour': 'nan' is not"),
        ("EPYC,gpu,x,2,4,0.1,a,b,c", r"own.csv, line 2, column 'kind': 'gpu' is not one of cpu, cuda, rocm, tpu"),
        ("EP(YC,cpu,x,2,4,0.1,a,b,c", r"own.csv, line 2, column 'pattern': 'EP\(YC' is not a regular expression"),
        (",cpu,x,2,4,0.1,a,b,c", r"own.csv, line 2, column 'pattern': '' is not"),
        ("EPYC,cpu,x,2", r"own.csv, line 2: not 9 cells"),
        ("EPYC,cpu,x,2,4,0.1,a,b,c,d", r"own.csv, line 2: not 9 cells"),
        ('EPYC,cpu,"x"y,2,4,0.1,a,b,c', r"own.csv, line 2: not csv"),
    ],
)
def test_a_wrong_cell_is_named(own: Path, line: str, said: str) -> None:
    own.write_text(f"{HEADER}\n{line}\n")
    with pytest.raises(JobError, match=said):
        prices.price("cpu", GENOA)


def test_optional_columns_may_be_there_or_not(own: Path) -> None:
    own.write_text(f"{HEADER},devices,market\nT4,cuda,ours,,,0.2,a,b,c,4,Spot\nT4,cuda,ours,,,0.3,a,b,c,,\n")
    assert prices.price("cuda", "Tesla T4").value == 0.3
    assert prices.price("cuda", "Tesla T4", market="spot").value == 0.2
    own.write_text(f"{HEADER},market\nT4,cuda,ours,,,0.2,a,b,c,futures\n")
    with pytest.raises(JobError, match=r"line 2, column 'market': 'futures' is not one of on demand, spot"):
        prices.price("cuda", "Tesla T4")
    own.write_text(f"{HEADER},devices\nT4,cuda,ours,,,0.2,a,b,c,many\n")
    with pytest.raises(JobError, match=r"line 2, column 'devices': 'many' is not a whole number of devices"):
        prices.price("cuda", "Tesla T4")


def test_a_wrong_header_is_named(own: Path) -> None:
    own.write_text("pattern,kind,instanse\n")
    with pytest.raises(JobError, match=r"line 1: unknown column 'instanse'. Did you mean 'instance'\?"):
        prices.price("cpu", GENOA)
    own.write_text("pattern,kind\n")
    with pytest.raises(JobError, match="line 1: column 'instance' is missing"):
        prices.price("cpu", GENOA)


def test_a_file_that_cannot_be_read_is_named(own: Path) -> None:
    with pytest.raises(JobError, match=r"cannot read the price file '.*own.csv' of THRIFTY_PRICES: No such file"):
        prices.price("cpu", GENOA)
    own.write_bytes(b"\xff\xfe")
    with pytest.raises(JobError, match="not UTF-8"):
        prices.price("cpu", GENOA)
    own.write_text("x" * (prices.MAX_PRICE_BYTES + 1))
    with pytest.raises(JobError, match=r"larger than 1\.0 MiB"):
        prices.price("cpu", GENOA)
