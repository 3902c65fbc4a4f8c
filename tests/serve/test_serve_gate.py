"""Keys, ids and logs of requests, in every protocol; and what serving costs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from real_server import serving

from thrifty.errors import JobError
from thrifty.export.bundle import Bundle
from thrifty.serve.asgi import App
from thrifty.serve.gate import Gate
from thrifty.serve.keys import Keys, read_keys
from thrifty.serve.limits import Limits
from thrifty.serve.logs import set_up

KEY = "0123456789abcdef"
PREDICT = "/v1/models/pets:predict"
BODY = {"instances": [[[[1, 2, 3]] * 16] * 16]}


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    logger = logging.getLogger("thrifty")
    before = (logger.handlers[:], logger.level, logger.propagate)
    set_up("json")
    stream = io.StringIO()
    handler = logger.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    yield stream
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.mark.slow
def test_who_has_no_key_is_refused_as_each_protocol_does_it(pets: Bundle) -> None:
    app = App([pets], Limits(), gate=Gate(Keys([KEY, "another key of mine"])))
    with serving(app) as url, httpx.Client(base_url=url) as client:
        for path in (PREDICT, "/v2/models/pets/infer"):
            refused = client.post(path, json=BODY)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert refused.json() == {"error": "Unauthorized: an API key is needed"}
        refused = client.post("/v1/chat/completions", json={})
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        assert client.get("/metrics").status_code == 401
        assert client.get("/v2/health/ready").status_code == 200
        for header in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": "another key of mine"}):
            assert client.post(PREDICT, json=BODY, headers=header).status_code == 200
        for header in ({"Authorization": f"Basic {KEY}"}, {"X-API-Key": KEY + "x"}, {"X-API-Key": ""}):
            assert client.post(PREDICT, json=BODY, headers=header).status_code == 401


def test_keys_come_from_a_file_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THRIFTY_API_KEYS", raising=False)
    assert read_keys(None) is None
    (tmp_path / "keys").write_text(f"# of the team\n\n{KEY}\n")
    monkeypatch.setenv("THRIFTY_API_KEYS", "one more key of mine, ")
    keys = read_keys(tmp_path / "keys")
    assert keys is not None
    for key, allowed in ((KEY, True), ("one more key of mine", True), ("", False), ("# of the team", False)):
        assert keys.allow({b"x-api-key": key.encode()}) == allowed
    (tmp_path / "keys").write_text("short\n")
    with pytest.raises(JobError, match="API key 2 has under 16 characters"):
        read_keys(tmp_path / "keys")
    monkeypatch.delenv("THRIFTY_API_KEYS")
    (tmp_path / "keys").write_text("# none\n")
    with pytest.raises(JobError, match="there is no API key"):
        read_keys(tmp_path / "keys")
    with pytest.raises(JobError, match="cannot be read"):
        read_keys(tmp_path / "gone")


@pytest.mark.slow
def test_each_request_has_an_id_and_a_line(pets: Bundle, logged: io.StringIO) -> None:
    with serving(App([pets], Limits(), gate=Gate(logs=True))) as url, httpx.Client(base_url=url) as client:
        given = client.post(PREDICT, json=BODY, headers={"X-Request-ID": "mine-7"})
        made = client.get("/nowhere", headers={"X-Request-ID": "not\tone"})
        assert given.headers["x-request-id"] == "mine-7"
        assert len(made.headers["x-request-id"]) == 16
    lines = {line["id"]: line for line in map(json.loads, logged.getvalue().splitlines()) if "id" in line}
    line = lines["mine-7"]
    assert (line["method"], line["path"], line["status"], line["client"]) == ("POST", PREDICT, 200, "127.0.0.1")
    assert 0 < line["seconds"] < 30
    assert lines[made.headers["x-request-id"]]["status"] == 404


@pytest.mark.slow
def test_the_bill_of_a_model_is_told(pets: Bundle) -> None:
    with serving(App([pets], Limits())) as url:
        assert httpx.post(f"{url}{PREDICT}", json=BODY).status_code == 200
        page = httpx.get(f"{url}/metrics").text
    told = {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if 'model="pets:1"' in line}
    assert 0 < told["thrifty_cpu_seconds_total"] < told["thrifty_joules_total"], "a core takes over a watt"
    assert told["thrifty_usd_total"] > 0
