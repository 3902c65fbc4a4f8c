"""A folder of versions: the newest that loads is served, the one before stays until then."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from made_bundles import write_image_bundle
from real_server import serving

from thrifty.errors import JobError
from thrifty.export.bundle import Bundle
from thrifty.serve.asgi import App
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Models
from thrifty.serve.watch import Watch

pytestmark = pytest.mark.slow


@pytest.fixture
def models() -> Iterator[Models]:
    made = Models([], Limits(), Metrics(), empty=True)
    yield made
    made.close()


def served(models: Models) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for model in models:
        found.setdefault(model.name, []).append(model.version)
    return found


def test_versions_are_followed(models: Models, pets: Bundle, tmp_path: Path) -> None:
    watch = Watch(tmp_path, models)
    watch.look()
    assert served(models) == {}
    shutil.copytree(pets.folder, tmp_path / "cats" / "1")
    shutil.copytree(pets.folder, tmp_path / "dogs" / "7" / "bundle")
    (tmp_path / "cats" / "notes").mkdir()
    watch.look()
    assert served(models) == {"cats": [1], "dogs": [7]}
    first = models.find("cats", 1)
    watch.look()
    assert models.find("cats", None) is first, "what has not changed is not loaded again"

    # a copy that is not whole yet takes nobody's place, and does once it is
    write_image_bundle(tmp_path / "made", name="pets", version=1, seed=5)
    (tmp_path / "cats" / "10").mkdir()
    shutil.copy(tmp_path / "made" / "bundle.json", tmp_path / "cats" / "10")
    watch.look()
    assert served(models)["cats"] == [1]
    shutil.copy(tmp_path / "made" / "model.safetensors", tmp_path / "cats" / "10")
    watch.look()
    assert served(models)["cats"] == [10]

    # taken away, the one before is served again
    shutil.rmtree(tmp_path / "cats" / "10")
    watch.look()
    assert served(models) == {"cats": [1], "dogs": [7]}
    shutil.rmtree(tmp_path / "dogs")
    watch.look()
    assert served(models) == {"cats": [1]}


def test_a_server_follows_its_folder(pets: Bundle, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="is no folder"):
        App([], Limits(), watch=tmp_path / "none")
    app = App([], Limits(), watch=tmp_path)
    with serving(app) as url:
        shutil.copytree(pets.folder, tmp_path / "later" / "3")
        until = time.monotonic() + 30
        while httpx.get(f"{url}/v2/models/later/ready").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        status = httpx.get(f"{url}/v1/models/later").json()["model_version_status"]
        assert [(each["version"], each["state"]) for each in status] == [("3", "AVAILABLE")]


def test_a_server_is_ready_once_its_folder_was_looked_at(
    pets: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pets.folder, tmp_path / "cats" / "1")
    gate, look = threading.Event(), Watch.look

    def wait(watch: Watch) -> None:
        assert gate.wait(30)
        look(watch)

    monkeypatch.setattr(Watch, "look", wait)
    with serving(App([], Limits(), watch=tmp_path), warm=False) as url:
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
        gate.set()
        until = time.monotonic() + 30
        while httpx.get(f"{url}/v2/health/ready").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert httpx.get(f"{url}/v2/models/cats/ready").status_code == 200
