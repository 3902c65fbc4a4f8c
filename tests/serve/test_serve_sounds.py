"""Sound over both protocols: the answers are the bundle's own, and bad requests are told."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from made_bundles import sound, write_sound_bundle, write_wave_bundle
from real_server import running

from thrifty.export.bundle import Bundle, load_bundle
from thrifty.models.decoding import beam
from thrifty.spec.transcripts import spelled

TONES = [sound(0.2, pitch=300), sound(0.6, pitch=900)]
CODED = [base64.b64encode(tone).decode() for tone in TONES]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    folder = tmp_path_factory.mktemp("sounds")
    write_sound_bundle(folder / "ear", name="ear")
    write_sound_bundle(folder / "scribe", task="transcribe", name="scribe")
    write_wave_bundle(folder / "waves", name="waves")
    return {name: load_bundle(folder / name) for name in ("ear", "scribe", "waves")}


@pytest.fixture(scope="module")
def hearing(bundles: dict[str, Bundle]) -> Iterator[httpx.Client]:
    with running(list(bundles.values())) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ear", "waves"])
def test_tensorflow_serving_labels_sound(name: str, hearing: httpx.Client, bundles: dict[str, Bundle]) -> None:
    body = {"instances": [{"b64": each} for each in CODED]}
    found = hearing.post(f"/v1/models/{name}:predict", json=body).json()["predictions"]
    for each, tone in zip(found, TONES, strict=True):
        wanted = bundles[name].predict(tone)
        assert each["label"] == wanted["label"]
        assert each["probabilities"] == pytest.approx(list(wanted["probabilities"].values()), abs=1e-5)


@pytest.mark.slow
def test_open_inference_transcribes_sound(hearing: httpx.Client, bundles: dict[str, Bundle]) -> None:
    tensor: dict[str, Any] = {"name": "sound", "shape": [2], "datatype": "BYTES", "data": CODED}
    (found,) = hearing.post("/v2/models/scribe/infer", json={"inputs": [tensor]}).json()["outputs"]
    assert found["name"] == "transcript"
    assert found["data"] == [bundles["scribe"].predict(tone)["transcript"] for tone in TONES]


@pytest.mark.slow
def test_what_is_no_sound_is_told_with_its_place(hearing: httpx.Client) -> None:
    tensor = {"name": "sound", "shape": [2], "datatype": "BYTES", "data": [CODED[0], "bm8gc291bmQ="]}
    answer = hearing.post("/v2/models/ear/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert "sound 1: not a sound" in answer.json()["error"]


def asked_of(client: httpx.Client, beam: Any) -> dict[str, httpx.Response]:
    """What each protocol, and each form of it, answers to a request for a beam."""
    tensor: dict[str, Any] = {"name": "sound", "shape": [2], "datatype": "BYTES", "data": CODED}
    by_row = [{"sound": {"b64": each}, "beam": beam} for each in CODED]
    by_column = {"sound": [{"b64": each} for each in CODED], "beam": beam}
    return {
        "oip": client.post("/v2/models/scribe/infer", json={"inputs": [tensor], "parameters": {"beam": beam}}),
        "instances": client.post("/v1/models/scribe:predict", json={"instances": by_row}),
        "inputs": client.post("/v1/models/scribe:predict", json={"inputs": by_column}),
    }


@pytest.mark.slow
def test_both_protocols_follow_as_many_transcripts_as_asked(hearing: httpx.Client, bundles: dict[str, Bundle]) -> None:
    form = bundles["scribe"].form
    logits = form.logits([form.row(tone)[0] for tone in TONES])
    symbols = bundles["scribe"].info.data.labels
    for width in (2, 8):
        wanted = [spelled(beam(each[None], width)[0], symbols) for each in logits]
        assert wanted == [bundles["scribe"].predict(tone, beam=width)["transcript"] for tone in TONES]
        found = {how: answer.json() for how, answer in asked_of(hearing, width).items()}
        assert found["oip"]["outputs"][0]["data"] == wanted
        assert found["instances"]["predictions"] == wanted
        assert found["inputs"]["outputs"] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("width", [0, 9, 2.5, "wide", True], ids=str)
def test_a_beam_that_costs_too_much_or_is_none_is_refused(hearing: httpx.Client, width: Any) -> None:
    for answer in asked_of(hearing, width).values():
        assert answer.status_code == 400
        assert "beam must be a whole number from 1 to 8" in answer.json()["error"]


@pytest.mark.slow
def test_limits_of_the_server_are_no_options_of_requests(hearing: httpx.Client) -> None:
    body = {"instances": [{"sound": {"b64": CODED[0]}, "max_seconds": 1e9}]}
    assert "max_seconds" in hearing.post("/v1/models/scribe:predict", json=body).json()["error"]
    body = {"instances": [{"sound": {"b64": CODED[0]}, "beam": 2}]}
    assert "beam" in hearing.post("/v1/models/ear:predict", json=body).json()["error"]
