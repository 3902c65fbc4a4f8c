"""Labels of versions: how they are written, what they must stand for, and the paths that name them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from made_bundles import pixels
from real_server import running

from thrifty import serve
from thrifty.errors import JobError
from thrifty.export.bundle import Bundle
from thrifty.serve.labels import parse_labels


@pytest.fixture(scope="module")
def labelled(pets: Bundle, pets2: Bundle) -> Iterator[httpx.Client]:
    labels = ["stable=1", "pets:new one=2", "pets:old=1"]
    with running([pets, pets2], labels=labels) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize(("path", "version"), [("stable", 1), ("new%20one", 2), ("old", 1)])
def test_a_label_answers_as_its_version(
    labelled: httpx.Client, pets: Bundle, pets2: Bundle, path: str, version: int
) -> None:
    asked = {"instances": [pixels(1).tolist()]}
    reply = labelled.post(f"/v1/models/pets/LABELS/{path}:predict", json=asked)
    assert reply.status_code == 200, reply.text
    found = reply.json()["predictions"][0]
    bundle = {1: pets, 2: pets2}[version]
    assert np.allclose(found["probabilities"], bundle.form.probabilities(pixels(1)[None])[0], atol=1e-5)
    (status,) = labelled.get(f"/v1/models/pets/labels/{path}").json()["model_version_status"]
    assert status["version"] == str(version)
    assert labelled.get(f"/v1/models/pets/labels/{path}/metadata").json()["model_spec"]["version"] == str(version)


@pytest.mark.parametrize("label", ["Stable", "none"])
def test_an_unknown_label_is_told(labelled: httpx.Client, label: str) -> None:
    reply = labelled.post(f"/v1/models/pets/labels/{label}:predict", json={})
    assert reply.json() == {"error": f"Unrecognized servable version label: {label}"}


@pytest.mark.parametrize("text", ["stable", "=3", "stable=", "stable=x", ":stable=3", "a/b=3", "stable=-1"])
def test_what_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(JobError, match="cannot be read"):
        parse_labels([text])


@pytest.mark.parametrize("text", ["stable=3", "cats:stable=1"])
def test_a_label_stands_for_what_is_served(pets: Bundle, text: str) -> None:
    with pytest.raises(JobError, match=r"is not served of .*Served are: pets \[1\]"):
        serve.app([pets], labels=[text])
