"""The server under load, abuse and loss: own answers, bounded work, never a 500 for a client's mistake."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_bundles import LABELS, pixels, png
from real_server import running

from thrifty import serve
from thrifty.errors import JobError
from thrifty.export.bundle import Bundle
from thrifty.export.forms.images import Images
from thrifty.serve.batcher import FULL

PREDICT = "/v1/models/pets/versions/1:predict"
SOON = 30.0

pytestmark = pytest.mark.slow


def b64(seed: int) -> dict[str, str]:
    return {"b64": base64.b64encode(png(pixels(seed))).decode()}


class Gate(Images):
    """A classifier that waits at a gate, and counts the rows it computed."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.info, bundle.model, None)
        self.bundle = Bundle(bundle.info, bundle.folder, bundle.model, None)
        self.bundle.form = self
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.rows = 0
        self.fails: BaseException | None = None

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        self.entered.release()
        assert self.gate.wait(SOON)
        if self.fails:
            raise self.fails
        self.rows += len(images)
        return super().probabilities(images)


@pytest.fixture
def gated(pets: Bundle) -> Iterator[Gate]:
    gate = Gate(pets)
    yield gate
    gate.gate.set()


def metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def eventually(true: Any) -> None:
    until = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def hold(url: str, gate: Gate, pool: ThreadPoolExecutor) -> Any:
    """Send a request that keeps the worker busy until the gate opens."""
    gate.gate.clear()
    while gate.entered.acquire(blocking=False):
        pass
    held = pool.submit(httpx.post, f"{url}{PREDICT}", json={"instances": [b64(0)]}, timeout=SOON)
    assert gate.entered.acquire(timeout=SOON)
    return held


def test_both_protocols_answer_as_predict_does(client: httpx.Client, pets: Bundle) -> None:
    for seed in range(4):
        mine = pets.predict(png(pixels(seed, side=30)))
        data = base64.b64encode(png(pixels(seed, side=30))).decode()
        v1 = client.post(PREDICT, json={"instances": [{"b64": data}]}).json()["predictions"][0]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [data]}
        v2 = client.post("/v2/models/pets/versions/1/infer", json={"inputs": [tensor]}).json()["outputs"]
        assert v1["label"] == v2[1]["data"][0] == mine["label"]
        assert np.allclose(v1["probabilities"], list(mine["probabilities"].values()), atol=1e-5)
        assert np.allclose(v2[0]["data"], list(mine["probabilities"].values()), atol=1e-5)


def test_a_completion_is_predicts_own(client: httpx.Client, poet: Bundle) -> None:
    instance = {"prompt": "the cat", "max_tokens": 9, "seed": 4}
    (found,) = client.post("/v1/models/poet:predict", json={"instances": [instance]}).json()["predictions"]
    assert found == poet.predict("the cat", max_tokens=9, seed=4)["completion"]


def test_the_latest_version_answers_unless_asked(client: httpx.Client, pets: Bundle, pets2: Bundle) -> None:
    for path, bundle in (("/v1/models/pets:predict", pets2), (PREDICT, pets)):
        found = client.post(path, json={"instances": [pixels(3).tolist()]}).json()["predictions"][0]
        assert np.allclose(found["probabilities"], bundle.form.probabilities(pixels(3)[None])[0], atol=1e-5)


def test_32_clients_at_once_get_their_own_answers(url: str, pets: Bundle) -> None:
    """MLServer#1306: batching gave one caller all the answers."""
    expected = pets.form.probabilities(np.stack([pixels(seed) for seed in range(200)]))

    def one_client(number: int) -> None:
        random = np.random.default_rng(number)
        with httpx.Client(base_url=url, timeout=SOON) as client:
            for _ in range(6):
                seeds = random.integers(0, 200, size=random.integers(1, 6)).tolist()
                reply = client.post(PREDICT, json={"instances": [b64(seed) for seed in seeds]})
                found = [each["probabilities"] for each in reply.json()["predictions"]]
                assert np.allclose(found, expected[seeds], atol=1e-5)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(one_client, range(32)))


def test_waiting_requests_are_computed_together(gated: Gate) -> None:
    with running([gated.bundle]) as url, ThreadPoolExecutor(16) as pool:
        held = hold(url, gated, pool)
        before = metric(url, "thrifty_batch_rows_count")
        asked = [
            pool.submit(httpx.post, f"{url}{PREDICT}", json={"instances": [b64(n)]}, timeout=SOON) for n in range(12)
        ]
        eventually(lambda: metric(url, "thrifty_queue_rows") == 12)
        gated.gate.set()
        assert all(each.result(SOON).status_code == 200 for each in [held, *asked])
        assert metric(url, "thrifty_batch_rows_count") == before + 2
        assert metric(url, 'thrifty_requests_total{model="pets:1",protocol="tfserving",status="200"}') == 13


def test_overload_is_refused_quickly_and_recovered_from(gated: Gate) -> None:
    limits = serve.Limits(queue_rows=4, request_rows=4)
    with running([gated.bundle], limits=limits) as url, ThreadPoolExecutor(8) as pool:
        held = hold(url, gated, pool)
        waiting = pool.submit(httpx.post, f"{url}{PREDICT}", json={"instances": [b64(1)] * 3}, timeout=SOON)
        eventually(lambda: metric(url, "thrifty_queue_rows") == 3)
        start = time.monotonic()
        refused = httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)] * 2})
        assert (refused.status_code, refused.json()) == (503, {"error": FULL})
        assert int(refused.headers["retry-after"]) >= 1
        assert time.monotonic() - start < 5
        fits = pool.submit(httpx.post, f"{url}{PREDICT}", json={"instances": [b64(1)]}, timeout=SOON)
        eventually(lambda: metric(url, "thrifty_queue_rows") == 4)
        early = httpx.post(f"{url}{PREDICT}", content=b"not even JSON")
        assert (early.status_code, early.json()) == (503, {"error": FULL}), "said before the body is looked at"
        assert metric(url, 'thrifty_shed_total{model="pets:1"}') == 2
        gated.gate.set()
        assert [each.result(SOON).status_code for each in (held, waiting, fits)] == [200, 200, 200]
        assert httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}).status_code == 200


def test_a_client_that_leaves_is_not_computed(gated: Gate) -> None:
    with running([gated.bundle]) as url, ThreadPoolExecutor(2) as pool:
        held = hold(url, gated, pool)
        before = gated.rows
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)] * 5}, timeout=0.3)
        eventually(lambda: metric(url, "thrifty_queue_rows") == 0)
        gated.gate.set()
        assert held.result(SOON).status_code == 200
        assert httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}).status_code == 200
        assert gated.rows == before + 2
        assert metric(url, 'thrifty_requests_total{model="pets:1",protocol="tfserving",status="499"}') == 1


def test_a_late_answer_is_504(gated: Gate) -> None:
    with running([gated.bundle], limits=serve.Limits(deadline_seconds=0.3)) as url, ThreadPoolExecutor(2) as pool:
        held = hold(url, gated, pool)
        late = httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}, timeout=SOON)
        assert (late.status_code, late.json()) == (504, {"error": "Deadline exceeded: no answer within 0.3 s"})
        assert held.result(SOON).status_code == 504
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503, "stuck in one batch for longer than any may take"
        gated.gate.set()
        eventually(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
        assert httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}).status_code == 200


def test_ready_means_that_an_answer_was_computed(gated: Gate) -> None:
    gated.gate.clear()
    with running([gated.bundle], warm=False) as url:
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        reply = httpx.get(f"{url}/v2/health/ready")
        assert (reply.status_code, reply.json()) == (503, {"ready": False})
        assert httpx.get(f"{url}/v2/models/pets/ready").status_code == 503
        state = httpx.get(f"{url}/v1/models/pets").json()["model_version_status"][0]["state"]
        assert state == "LOADING"
        gated.gate.set()
        eventually(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)


def test_what_ends_the_worker_is_told_and_it_works_again(gated: Gate) -> None:
    with running([gated.bundle], limits=serve.Limits(probe_seconds=0.1)) as url:
        gated.fails = SystemExit()
        reply = httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}, timeout=SOON)
        assert (reply.status_code, "its worker was lost over this input" in reply.json()["error"]) == (500, True)
        assert httpx.get(f"{url}/v2/health/ready").status_code == 503
        assert httpx.get(f"{url}/v2/health/live").status_code == 200
        gated.fails = None
        eventually(lambda: httpx.get(f"{url}/v2/health/ready").status_code == 200)
        assert httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}).status_code == 200


def test_a_failing_model_is_500_and_lives_on(gated: Gate) -> None:
    with running([gated.bundle]) as url:
        gated.fails = RuntimeError("secret detail")
        reply = httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}, timeout=SOON)
        assert (reply.status_code, reply.json()) == (500, {"error": "The model failed: RuntimeError"})
        gated.fails = None
        assert httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}).status_code == 200


def test_nan_is_said_where_the_protocol_can(pets: Bundle) -> None:
    class Broken(Gate):
        def probabilities(self, images: np.ndarray) -> np.ndarray:
            return np.full((len(images), len(LABELS)), np.nan, dtype=np.float32)

    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [b64(1)["b64"]]}
    with running([Broken(pets).bundle]) as url:
        v1 = httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]})
        assert v1.status_code == 200
        assert b"[NaN, NaN, NaN]" in v1.content
        json_only = httpx.post(f"{url}/v2/models/pets/infer", json={"inputs": [tensor]})
        assert json_only.status_code == 500
        assert json_only.json()["error"].startswith("The model answered with NaN or infinity")
        asked = {"inputs": [tensor], "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
        binary = httpx.post(f"{url}/v2/models/pets/infer", json=asked)
        head = int(binary.headers["inference-header-content-length"])
        assert np.isnan(np.frombuffer(binary.content[head:], "<f4")).all()


def test_bodies_are_bounded(pets: Bundle) -> None:
    limits = serve.Limits(body_bytes=20_000, held_bytes=30_000, request_rows=3, body_seconds=0.3, max_pixels=10_000)
    with running([pets], limits=limits) as url, httpx.Client(base_url=url) as client:
        large = client.post(PREDICT, content=b" " * 20_001)
        assert (large.status_code, large.headers["connection"]) == (413, "close")
        assert "over 20000 bytes" in large.json()["error"]
        chunked = client.post(PREDICT, content=iter([b" " * 9_000] * 3))
        assert chunked.status_code == 413
        bomb = client.post(PREDICT, content=gzip.compress(b" " * 10**6), headers={"Content-Encoding": "gzip"})
        assert bomb.status_code == 413
        many = client.post(PREDICT, json={"instances": [b64(1)] * 4})
        assert many.json() == {"error": "Task size 4 is larger than maximum input batch size 3"}
        pixels_bomb = client.post(
            PREDICT, json={"instances": [{"b64": base64.b64encode(png(np.zeros((101, 101, 3), np.uint8))).decode()}]}
        )
        assert (pixels_bomb.status_code, "too many pixels" in pixels_bomb.text) == (400, True)
        assert client.post(PREDICT, json={"instances": [b64(1)]}).status_code == 200


def test_gzip_bodies_are_inflated(client: httpx.Client) -> None:
    body = json.dumps({"instances": [b64(1)]}).encode()
    assert client.post(PREDICT, content=gzip.compress(body), headers={"Content-Encoding": "gzip"}).status_code == 200
    for encoding, content, status in (("gzip", body, 400), ("gzip", gzip.compress(body)[:-9], 400), ("br", body, 415)):
        reply = client.post(PREDICT, content=content, headers={"Content-Encoding": encoding})
        assert reply.status_code == status
        assert reply.json()["error"]


def _raw(url: str, request: bytes, *, then_close: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=SOON) as sock:
        sock.sendall(request)
        if then_close:
            sock.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65536):
                answer += part
                if b"\r\n\r\n" in answer and b"}" in answer:
                    break
        return answer


def test_lies_about_the_length_do_no_harm(pets: Bundle) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: ".encode()
    with running([pets], limits=serve.Limits(body_seconds=0.3)) as url:
        assert b" 413 " in _raw(url, head + b"99999999999\r\n\r\n")
        assert b" 408 " in _raw(url, head + b"100\r\n\r\n{"), "a body that does not come"
        assert b" 400 " in _raw(url, head + b"2\r\n\r\n{} trailing lies\r\n\r\n")
        assert b" 400 " in _raw(url, head + b"-5\r\n\r\n{}")
        assert _raw(url, head + b"100\r\n\r\n{", then_close=True) == b"", "a client that leaves while it sends"
        assert httpx.post(f"{url}{PREDICT}", json={"instances": [b64(1)]}).status_code == 200


def test_a_head_is_bounded_in_size_and_time(pets: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrifty.serve.connection.HEAD_SECONDS", 0.3)
    line = b"GET /v2/health/live HTTP/1.1\r\n"
    with running([pets]) as url:
        assert b" 200 " in _raw(url, line + b"X: " + b"y" * 30_000 + b"\r\n\r\n")
        assert _raw(url, line + (b"X: " + b"y" * 1000 + b"\r\n") * 500) == b""
        for nothing_more in (b"", line):
            start = time.monotonic()
            assert _raw(url, nothing_more) == b""
            assert 0.2 < time.monotonic() - start < SOON / 2
        with httpx.Client(base_url=url) as client:
            assert client.get("/v2/health/live").status_code == 200
            time.sleep(0.5)
            assert client.get("/v2/health/live").status_code == 200, "an idle connection is uvicorn's to close"


def test_all_bodies_together_are_bounded(gated: Gate) -> None:
    limits = serve.Limits(body_bytes=4000, held_bytes=5000, request_rows=8)
    with running([gated.bundle], limits=limits) as url, ThreadPoolExecutor(2) as pool:
        held = hold(url, gated, pool)
        refused = httpx.post(f"{url}{PREDICT}", content=b" " * 4000)
        assert (refused.status_code, "holds as many" in refused.text) == (503, True)
        gated.gate.set()
        assert held.result(SOON).status_code == 200
        assert httpx.post(f"{url}{PREDICT}", content=b" " * 4000).status_code == 400


def test_metrics_have_no_labels_of_a_clients_making(client: httpx.Client) -> None:
    client.post("/v1/models/made-up-by-me:predict", json={"instances": [1]})
    for path in ("/metrics", "/monitoring/prometheus/metrics"):
        page = client.get(path)
        assert page.headers["content-type"].startswith("text/plain")
        assert "thrifty_request_seconds_bucket" in page.text
        assert "made-up-by-me" not in page.text
    assert client.post("/metrics").status_code == 405


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just(b64(1)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["image", "pixels", "prompt", "x"]) | JSON,
        "shape": st.lists(st.integers(-2, 20), max_size=4) | st.just([1, 16, 16, 3]) | JSON,
        "datatype": st.sampled_from(["BYTES", "UINT8", "FP32"]) | JSON,
        "data": JSON,
    },
    optional={"parameters": JSON},
)
V1 = st.fixed_dictionaries(
    {},
    optional={
        "instances": st.lists(JSON, max_size=3)
        | st.lists(st.fixed_dictionaries({"image": JSON, "prompt": JSON}))
        | JSON,
        "inputs": st.fixed_dictionaries({"image": JSON, "prompt": JSON}) | JSON,
        "examples": st.lists(st.fixed_dictionaries({"image": JSON}), max_size=3) | JSON,
        "signature_name": st.just("serving_default") | JSON,
    },
)
V2 = st.fixed_dictionaries({}, optional={"inputs": st.lists(TENSOR, max_size=2) | JSON, "outputs": JSON, "id": JSON})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from([PREDICT, "/v1/models/pets:classify", "/v1/models/poet:predict"]), body=V1 | JSON)
def test_no_v1_body_is_a_500(client: httpx.Client, path: str, body: Any) -> None:
    _check(client.post(path, content=json.dumps(body).encode()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(["/v2/models/pets/infer", "/v2/models/poet/infer"]), body=V2 | JSON)
def test_no_v2_body_is_a_500(client: httpx.Client, path: str, body: Any) -> None:
    _check(client.post(path, content=json.dumps(body).encode()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), path=st.sampled_from([PREDICT, "/v2/models/poet/infer"]))
def test_no_bytes_are_a_500(client: httpx.Client, path: str, body: bytes) -> None:
    _check(client.post(path, content=body))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=20), method=st.sampled_from(["GET", "POST", "PUT", "HEAD"]))
def test_no_path_is_a_500(client: httpx.Client, name: str, method: str) -> None:
    from urllib.parse import quote

    for path in (f"/{quote(name)}", f"/v1/models/{quote(name, safe='')}", f"/v2/models/{quote(name, safe='')}/infer"):
        assert client.request(method, path).status_code < 500


def _check(reply: httpx.Response) -> None:
    body = reply.json()
    if reply.status_code != 200:
        assert 400 <= reply.status_code < 500, (reply.status_code, body)
        assert list(body) == ["error"]
        assert body["error"]


def test_bundles_that_cannot_be_served_together(pets: Bundle) -> None:
    with pytest.raises(JobError, match="two bundles are named 'pets' version 1"):
        serve.app([pets, pets])
    with pytest.raises(JobError, match="no bundle"):
        serve.app([])


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"queue_rows": 0}, "queue_rows is 0"),
        ({"deadline_seconds": float("inf")}, "deadline_seconds is inf"),
        ({"queue_rows": 5}, "queue_rows 5 is below request_rows"),
        ({"held_bytes": 5}, "held_bytes 5 is below body_bytes"),
    ],
)
def test_limits_that_cannot_be_meant(limits: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError, match=says):
        serve.Limits(**limits)
