"""Requests to models that a connection answers by itself: as the application would, in order, within all bounds."""

from __future__ import annotations

import gzip
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from made_bundles import pixels
from real_server import running, serving

from thrifty import serve
from thrifty.export.bundle import Bundle
from thrifty.serve.asgi import App
from thrifty.serve.direct import is_direct
from thrifty.serve.gate import Gate
from thrifty.serve.keys import Keys

SOON = 30.0
PREDICT = "/v1/models/pets:predict"
KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def url(pets: Bundle) -> Iterator[str]:
    with running([pets]) as url:
        yield url


def body_of(seed: int) -> bytes:
    return json.dumps({"instances": [pixels(seed).tolist()]}).encode()


def head_of(path: str, size: int, *more: str, version: str = "1.1") -> bytes:
    lines = (f"POST {path} HTTP/{version}", "host: x", f"content-length: {size}", *more)
    return "\r\n".join((*lines, "", "")).encode()


def request(seed: int, *more: str, path: str = PREDICT, version: str = "1.1") -> bytes:
    body = body_of(seed)
    return head_of(path, len(body), *more, version=version) + body


class Line:
    """A connection that is spoken to in bytes."""

    def __init__(self, url: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), SOON)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while line := self.file.readline().strip().decode():
            name, _, value = line.partition(": ")
            headers[name] = value
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    @property
    def ended(self) -> bool:
        return self.file.read(1) == b""


def scores(body: bytes) -> list[float]:
    (found,) = json.loads(body)["predictions"]
    probabilities: list[float] = found["probabilities"]
    return probabilities


def right(pets: Bundle, seed: int) -> Any:
    return pytest.approx(pets.form.answers([pixels(seed)])[0]["probabilities"].tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("method", "url", "headers", "direct"),
    [
        (b"POST", b"/v1/models/a:predict", [], True),
        (b"POST", b"/v1/models/a/versions/3:classify", [], True),
        (b"POST", b"/v2/models/a/infer", [], True),
        (b"GET", b"/v2/models/a/infer", [], False),
        (b"POST", b"/v1/models/a%20b:predict", [], False),
        (b"POST", b"/v1/models/a:predict?x=1", [], False),
        (b"POST", b"http://x/v1/models/a:predict", [], False),
        (b"POST", b"/v1/completions", [], False),
        (b"POST", b"/v2/models/a/infer", [(b"content-encoding", b"gzip")], False),
    ],
    ids=str,
)
def test_what_needs_more_is_left_to_the_application(
    method: bytes, url: bytes, headers: list[tuple[bytes, bytes]], direct: bool
) -> None:
    assert is_direct(method, url, headers) == direct


def test_both_ways_give_the_same_answer(url: str, pets: Bundle) -> None:
    for body in (body_of(3), b"{", b'{"instances": []}', b"", b'{"instances": [1]}'):
        direct = httpx.post(f"{url}{PREDICT}", content=body)
        other = httpx.post(f"{url}{PREDICT}", content=gzip.compress(body), headers={"content-encoding": "gzip"})
        assert (direct.status_code, direct.content) == (other.status_code, other.content)
        names = [sorted(set(each.headers) - {"x-request-id"}) for each in (direct, other)]
        assert names[0] == names[1]
    unknown = [httpx.post(f"{url}/v1/models/{name}:predict", content=b"{}") for name in ("dogs", "d%6Fgs")]
    assert unknown[0].status_code == 404 and unknown[0].content == unknown[1].content


def test_requests_in_a_row_are_answered_in_order(url: str, pets: Bundle) -> None:
    with Line(url) as line:
        line.send(b"".join(request(seed) for seed in range(5)))
        for seed in range(5):
            status, _, body = line.answer()
            assert status == 200 and scores(body) == right(pets, seed)


def test_direct_and_other_requests_take_turns_on_a_connection(url: str, pets: Bundle) -> None:
    live = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    with Line(url) as line:
        line.send(request(1) + live + request(2) + live)
        found = [line.answer() for _ in range(4)]
    assert [status for status, _, _ in found] == [200] * 4
    assert scores(found[0][2]) == right(pets, 1) and scores(found[2][2]) == right(pets, 2)
    assert json.loads(found[1][2]) == json.loads(found[3][2]) == {"live": True}


def test_hundreds_in_a_row_that_are_refused_are_all_told(url: str) -> None:
    bad = head_of("/v1/models/dogs:predict", 0)
    with Line(url) as line:
        line.send(request(0) + 600 * bad)
        assert line.answer()[0] == 200
        assert {line.answer()[0] for _ in range(600)} == {404}


def test_a_body_may_come_in_chunks_and_in_pieces(url: str, pets: Bundle) -> None:
    body = body_of(4)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    with Line(url) as line:
        line.send(head)
        for at in range(0, len(body), 1000):
            part = body[at : at + 1000]
            line.send(b"%x\r\n%b\r\n" % (len(part), part))
        line.send(b"0\r\n\r\n")
        assert scores(line.answer()[2]) == right(pets, 4)
        whole = request(5)
        for at in range(0, len(whole), 700):
            line.send(whole[at : at + 700])
        assert scores(line.answer()[2]) == right(pets, 5)


def test_who_asks_whether_to_send_is_told(url: str, pets: Bundle) -> None:
    body = body_of(6)
    with Line(url) as line:
        line.send(head_of(PREDICT, len(body), "expect: 100-continue"))
        assert line.answer()[0] == 100
        line.send(body)
        assert scores(line.answer()[2]) == right(pets, 6)


def test_a_connection_ends_where_its_client_wants_it_to(url: str, pets: Bundle) -> None:
    for asked in (request(0, version="1.0"), request(0, "connection: close")):
        with Line(url) as line:
            line.send(asked)
            status, headers, _ = line.answer()
            assert status == 200 and headers["connection"] == "close" and line.ended


def test_ids_are_given_back(url: str) -> None:
    with Line(url) as line:
        line.send(request(0, "x-request-id: mine") + request(0) + request(0, "x-request-id: not mine"))
        ids = [line.answer()[1]["x-request-id"] for _ in range(3)]
    assert ids[0] == "mine" and len(ids[1]) == len(ids[2]) == 16 and ids[1] != ids[2]


def test_bodies_are_bounded_in_size_and_time(pets: Bundle) -> None:
    limits = serve.Limits(body_bytes=100_000, held_bytes=150_000, body_seconds=0.5)
    with running([pets], limits=limits) as url:
        with Line(url) as line:
            line.send(head_of(PREDICT, 100_001))
            status, headers, _ = line.answer()
            assert status == 413 and headers["connection"] == "close" and line.ended
        with Line(url) as line:
            line.send(f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
            line.send(b"%x\r\n%b\r\n" % (100_001, b" " * 100_001))
            assert line.answer()[0] == 413
        with Line(url) as line:
            began = time.monotonic()
            line.send(head_of(PREDICT, 1000) + b"{")
            assert line.answer()[0] == 408 and 0.4 < time.monotonic() - began < SOON and line.ended
        with Line(url) as one, Line(url) as other:
            one.send(head_of(PREDICT, 90_000) + b" " * 80_000)
            time.sleep(0.1)
            other.send(head_of(PREDICT, 90_000) + b" " * 90_000)
            assert other.answer()[0] == 503
        # nothing of it is held any more
        assert httpx.post(f"{url}{PREDICT}", content=body_of(0)).status_code == 200


def test_who_has_no_key_is_refused_before_the_body(pets: Bundle) -> None:
    app = App([pets], serve.Limits(), gate=Gate(Keys([KEY])))
    with serving(app) as url, Line(url) as line:
        line.send(head_of(PREDICT, 10_000_000))
        status, headers, _ = line.answer()
        assert status == 401 and headers["www-authenticate"] == "Bearer"
        line.send(b" " * 10_000_000)
        line.send(request(0, f"x-api-key: {KEY}"))
        assert line.answer()[0] == 200


def test_what_a_client_that_leaves_asked_is_counted_and_let_go(pets: Bundle) -> None:
    with running([pets]) as url:
        for part in (request(0)[:-10], head_of(PREDICT, 10)):
            with Line(url) as line:
                line.send(part)
                time.sleep(0.05)
        until = time.monotonic() + SOON
        counted = 'thrifty_requests_total{model="pets:1",protocol="tfserving",status="499"} 2.0'
        while counted not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_pixels_behind_a_short_head_are_taken_as_they_lie(url: str, pets: Bundle) -> None:
    rows = np.stack([pixels(seed) for seed in range(20)])
    asked = {"name": "pixels", "shape": list(rows.shape), "datatype": "UINT8"}
    head = json.dumps({"inputs": [asked | {"parameters": {"binary_data_size": rows.nbytes}}]}).encode()
    found = httpx.post(
        f"{url}/v2/models/pets/infer",
        content=head + rows.tobytes(),
        headers={"inference-header-content-length": str(len(head))},
    ).json()
    told = next(each for each in found["outputs"] if each["name"] == "probabilities")
    wanted = [each["probabilities"] for each in pets.form.answers(list(rows))]
    np.testing.assert_allclose(np.reshape(told["data"], told["shape"]), wanted, atol=1e-5)


def test_a_body_that_no_thread_is_left_to_parse_is_answered_and_its_model_let_go(pets: Bundle) -> None:
    app = App([pets], serve.Limits())
    with serving(app) as url:
        app._parsers.shutdown()
        large = json.dumps({"instances": [pixels(seed).tolist() for seed in range(8)]}).encode()
        assert httpx.post(f"{url}{PREDICT}", content=large).status_code == 500
        assert httpx.post(f"{url}{PREDICT}", content=body_of(0)).status_code == 200
        assert [model._held for model in app.models] == [0] and app.held.now == 0
