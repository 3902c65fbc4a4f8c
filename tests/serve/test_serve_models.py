"""Versions that come and go while a server answers: warmed before they answer, gone after their last request."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from made_bundles import pixels, png, write_image_bundle
from real_server import serving

from thrifty import serve
from thrifty.errors import BundleError, RequestError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.serve.asgi import App
from thrifty.serve.models import Standing

SOON = 30.0
PREDICT = "/v1/models/pets:predict"
BODY = {"instances": [{"b64": base64.b64encode(png(pixels(3))).decode()}]}

pytestmark = pytest.mark.slow


@pytest.fixture
def app(pets: Bundle) -> Iterator[App]:
    made = serve.app([load_bundle(pets.folder)], limits=serve.Limits(drain_seconds=SOON))
    made.start()
    yield made
    made.close()


def test_a_version_is_loaded_beside_and_the_older_one_leaves(app: App, pets2: Bundle) -> None:
    second = app.models.load(pets2.folder)
    assert second.ready, "it has answered before it is found"
    assert app.models.find("pets", None) is second
    assert [model.version for model in app.models.versions("pets")] == [2, 1]
    app.models.unload("pets", 1)
    assert app.models.find("pets", 1) is None
    assert app.models.standings() == [
        Standing("pets", 1, "UNAVAILABLE", "unloaded"),
        Standing("pets", 2, "READY"),
    ]
    app.models.unload("pets")
    assert app.models.versions("pets") == []


def test_what_is_not_there_is_named(app: App, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="failed to unload 'pets' version 7") as unknown:
        app.models.unload("pets", 7)
    assert unknown.value.status == 404
    with pytest.raises(BundleError, match="no bundle folder"):
        app.models.load(tmp_path / "none")


def test_a_damaged_version_takes_nobodys_place(app: App, tmp_path: Path) -> None:
    write_image_bundle(tmp_path / "bundle", name="pets", version=1)
    weights = tmp_path / "bundle" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    before = app.models.find("pets", 1)
    with pytest.raises(BundleError, match="damaged"):
        app.models.load(tmp_path / "bundle")
    assert app.models.find("pets", 1) is before
    assert before is not None and before.ready
    assert app.models.standings() == [Standing("pets", 1, "READY")]


def test_it_is_served_under_the_name_that_is_asked_for(app: App, pets2: Bundle) -> None:
    assert app.models.load(pets2.folder, name="friends", version=9).label == "friends:9"
    assert [(each.name, each.version) for each in app.models.standings()] == [("friends", 9), ("pets", 1)]


def test_it_leaves_when_its_last_request_has(app: App) -> None:
    model = app.models.find("pets", 1)
    assert model is not None
    assert model.hold()
    gone = threading.Thread(target=app.models.unload, args=("pets",))
    gone.start()
    try:
        while app.models.find("pets", 1):
            time.sleep(0.001)
        assert [each.state for each in app.models.standings()] == ["UNLOADING"]
        assert model.submit([model.form.made_up()]).result(SOON), "who holds it is still answered"
    finally:
        model.release()
        gone.join(SOON)
    assert not model.hold()
    with pytest.raises(RequestError, match="shutting down"):
        model.submit([model.form.made_up()])


def test_no_answer_is_lost_or_wrong_while_versions_are_swapped(app: App, pets: Bundle, pets2: Bundle) -> None:
    right = [bundle.form.probabilities(pixels(3)[None])[0] for bundle in (pets, pets2)]
    until = threading.Event()

    def ask(url: str) -> int:
        with httpx.Client(base_url=url, timeout=SOON) as client:
            count = 0
            while not until.is_set():
                reply = client.post(PREDICT, json=BODY)
                assert reply.status_code == 200, reply.text
                found = reply.json()["predictions"][0]["probabilities"]
                assert any(np.allclose(found, each, atol=1e-5) for each in right)
                count += 1
            return count

    with serving(app) as url, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, url) for _ in range(3)]
        try:
            for _ in range(10):
                app.models.load(pets2.folder)
                app.models.unload("pets", 2)
        finally:
            until.set()
        assert min(each.result(SOON) for each in asked) > 0
