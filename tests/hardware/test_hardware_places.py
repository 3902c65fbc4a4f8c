"""Places: what buildings add and grids emit, by name, by file, and told when it cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from thrifty.errors import JobError
from thrifty.hardware import places


@pytest.fixture(autouse=True)
def _nothing_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(places.OVERRIDE, raising=False)


def test_every_place_is_whole_dated_and_sourced() -> None:
    for name, each in places.places().items():
        assert name == each.name == name.lower()
        assert 1 <= each.pue.value <= 2
        assert 0.02 <= each.grid_kg_per_kwh.value <= 0.8
        for quantity in (each.pue, each.grid_kg_per_kwh):
            assert ", 20" in quantity.source
            assert quantity.source.endswith(f"override with {places.OVERRIDE}")


def test_a_place_by_name_and_the_default() -> None:
    assert places.place().name == "world"
    assert places.place("United States").grid_kg_per_kwh.value == pytest.approx(0.37)
    cloud = places.place("google")
    assert cloud.pue.value < places.place().pue.value
    assert cloud.grid_kg_per_kwh == places.place().grid_kg_per_kwh, "a cloud has no grid of its own: the world's"
    with pytest.raises(JobError, match=r"unknown place 'frence'. Did you mean 'france'\? Known: world, "):
        places.place("frence")


def test_overridden_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.OVERRIDE, "France")
    assert places.place().name == "france"
    assert places.place("world").name == "world", "a name that is asked for goes first"
    monkeypatch.setenv(places.OVERRIDE, "frence")
    with pytest.raises(JobError, match="unknown place 'frence'"):
        places.place()


def test_overridden_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "energy.yaml"
    monkeypatch.setenv(places.OVERRIDE, str(own))
    own.write_text("place: norway\npue: 1.03\n")
    found = places.place()
    assert (found.pue.value, found.pue.source) == (1.03, "from energy.yaml")
    assert found.grid_kg_per_kwh.source.startswith("norway")
    own.write_text("grid: 20 g/kWh\n")
    assert places.place().grid_kg_per_kwh.value == pytest.approx(0.02)
    assert places.place().pue.value == places.place("world").pue.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("peu: 1.2", r"unknown key 'peu' in '.*energy.yaml' of THRIFTY_ENERGY. Did you mean 'pue'\?"),
        ("pue: 0.9", r"pue: '0.9' is not a number from 1 to 3"),
        ("pue: yes", r"pue: 'True' is not a number"),
        ("pue: .nan", r"pue: 'nan' is not a number"),
        ("grid: 0.3", r"grid: emission needs a number and a unit, got 0.3; write it like '0.35 kg/kWh'"),
        ("grid: -1 kg/kWh", r"grid: emission must be above zero"),
        ("place: nowhere-land", r"unknown place 'nowhere-land'"),
        ("- 1", "holds list, not keys and values"),
        ("a: [", "is not YAML"),
        ("#" * (places.MAX_BYTES + 1), "is larger than"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    own = tmp_path / "energy.yaml"
    own.write_text(text)
    monkeypatch.setenv(places.OVERRIDE, str(own))
    with pytest.raises(JobError, match=said):
        places.place()


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.OVERRIDE, str(tmp_path / "none.yml"))
    with pytest.raises(JobError, match=r"cannot read '.*none.yml' of THRIFTY_ENERGY: No such file"):
        places.place()


def test_the_file_of_the_page_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "energy.md").read_text(encoding="utf-8")
    own = tmp_path / "energy.yaml"
    own.write_text("# energy.yaml" + page.split("```yaml\n# energy.yaml")[1].partition("\n```")[0])
    monkeypatch.setenv(places.OVERRIDE, str(own))
    assert places.place().pue.value == 1.08
    assert places.place().grid_kg_per_kwh.value == pytest.approx(0.02)
