"""What a server tells of its models, asked for by a page; who is no server of ours is told."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from made_site import Shown

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parent.parent / "export"))
sys.path.insert(0, str(Path(__file__).parent.parent / "serve"))


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """Answer every request with the same, as no server of thrifty's does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said: object) -> None:
            """Keep the test quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_of_ours_tells_its_models(shared: Shown, tmp_path: Path) -> None:
    from made_bundles import write_image_bundle
    from real_server import running

    from thrifty.export.bundle import load_bundle

    write_image_bundle(tmp_path / "pets", name="pets", version=1)
    with running([load_bundle(tmp_path / "pets")]) as url:
        for address in (url, url.removeprefix("http://")):
            said = shared.act("/served", {"address": address}).json()
            assert [model["name"] for model in said["cards"]["models"]] == ["pets"]
            assert said["bill"]["versions"]["pets:1"]["state"] == "ready"
            assert {tile["what"] for tile in said["bill"]["tiles"]["pets:1"]} >= {"Requests", "Energy"}


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1", "http://", "http://a:b@127.0.0.1", "http://127.0.0.1:99999", "/x"]
)
def test_what_is_no_address_is_told(shared: Shown, address: str) -> None:
    reply = shared.act("/served", {"address": address})
    assert reply.status_code in (400, 502) and "error" in reply.json()


def test_nobody_there_is_told(shared: Shown) -> None:
    reply = shared.act("/served", {"address": "http://127.0.0.1:1"})
    assert reply.status_code == 502 and "nobody answers at http://127.0.0.1:1" in reply.json()["error"]


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"<html>another server</html>", "is no server of thrifty's"),
        (404, b"", "is no server of thrifty's (status 404)"),
        (302, b"", "(status 302)"),
        (401, b"", "has keys"),
        (200, b"[" * 100_000, "is no server"),
    ],
    ids=["html", "not found", "sent elsewhere", "keys", "deep"],
)
def test_who_is_no_server_of_ours_is_told(shared: Shown, status: int, body: bytes, says: str) -> None:
    with answering(status, body, Location="http://127.0.0.1:1/secret") as url:
        reply = shared.act("/served", {"address": url})
    assert reply.status_code == 502 and says in reply.json()["error"]


def test_looking_at_a_server_needs_the_token(shared: Shown) -> None:
    reply = shared.act("/served", {"address": "http://127.0.0.1:1"}, **{"x-thrifty-token": ""})
    assert reply.status_code == 403
