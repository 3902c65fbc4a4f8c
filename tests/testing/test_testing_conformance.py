"""The conformance tables hold of our server, tell a wrong one, and say what does not apply."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "export"))
sys.path.insert(0, str(Path(__file__).parent.parent / "serve"))
from made_bundles import (
    write_image_bundle,
    write_language_bundle,
    write_sound_bundle,
    write_table_bundle,
    write_text_bundle,
)
from real_server import serving

from thrifty import serve
from thrifty.errors import JobError
from thrifty.export.bundle import load_bundle
from thrifty.serve.asgi import App
from thrifty.testing.conformance import Result, check_server

pytestmark = pytest.mark.slow


class Wrong:
    """An application that answers as another does, but for one thing."""

    def __init__(self, app: App) -> None:
        self.app, self.limits, self.models = app, app.limits, app.models
        self.change: Any = lambda status, body: (status, body)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        held: dict[str, Any] = {}

        async def changed(message: Any) -> None:
            if message["type"] == "http.response.start":
                held.update(message)
            elif message["type"] == "http.response.body" and held.get("headers") is not None:
                status, body = self.change(held["status"], message["body"])
                headers = [pair for pair in held["headers"] if pair[0] != b"content-length"]
                headers.append((b"content-length", str(len(body)).encode()))
                await send({**held, "status": status, "headers": headers})
                await send({**message, "body": body})
            else:
                await send(message)

        whole = scope["type"] == "http" and self.change is not None
        await self.app(scope, receive, changed if whole else send)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Wrong]]:
    folder = tmp_path_factory.mktemp("conforming")
    write_image_bundle(folder / "pets", name="pets")
    write_text_bundle(folder / "critic", name="critic")
    write_language_bundle(folder / "poet", name="poet")
    write_sound_bundle(folder / "ear", name="ear")
    write_table_bundle(folder / "pay", labels=(), name="pay")
    bundles = [load_bundle(each) for each in sorted(folder.iterdir()) if each.is_dir()]
    app = Wrong(serve.app(bundles, repository=folder))
    app.change = None
    with serving(app) as url:  # type: ignore[arg-type]
        yield url, app


def failed(results: list[Result]) -> list[str]:
    return [f"{each.name}: {each.why}" for each in results if each.outcome == "failed"]


@pytest.mark.parametrize("model", ["pets", "critic", "poet", "ear", "pay"])
@pytest.mark.parametrize("protocol", ["tfs", "oip"])
def test_our_server_holds_every_row(served: tuple[str, Wrong], protocol: str, model: str) -> None:
    results = check_server(served[0], protocol, model=model)
    assert failed(results) == []
    assert [each.name for each in results if each.outcome == "not applicable"] == []
    assert len(results) > 30


def test_our_server_speaks_openai(served: tuple[str, Wrong]) -> None:
    results = check_server(served[0], "openai")
    assert failed(results) == []
    assert [each.outcome for each in results] == ["passed"] * len(results)


def _other_status(status: int, body: bytes) -> tuple[int, bytes]:
    return (400 if status == 404 else status), body


def _no_error_text(status: int, body: bytes) -> tuple[int, bytes]:
    return status, b'{"detail": "wrong"}' if status >= 400 and body else body


def _all_right(status: int, body: bytes) -> tuple[int, bytes]:
    return 200, body


def _numbers_for_texts(status: int, body: bytes) -> tuple[int, bytes]:
    return status, body.replace(b'"version":"1"', b'"version":1')


def _no_id(status: int, body: bytes) -> tuple[int, bytes]:
    return status, body.replace(b'"id":"q-1",', b"")


WRONG = {
    "tfs other status": ("tfs", _other_status, "predict of an unknown model"),
    "tfs no error text": ("tfs", _no_error_text, "predict of neither key"),
    "tfs all right": ("tfs", _all_right, "predict of no JSON"),
    "tfs numbers for texts": ("tfs", _numbers_for_texts, "status"),
    "oip no error text": ("oip", _no_error_text, "unknown model"),
    "oip all right": ("oip", _all_right, "infer of another type"),
    "oip no id": ("oip", _no_id, "infer echoes its id"),
    "openai no error text": ("openai", _no_error_text, "completion of an unknown model"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_server_is_told(served: tuple[str, Wrong], case: str) -> None:
    url, app = served
    protocol, change, row = WRONG[case]
    app.change = change
    try:
        results = check_server(url, protocol, model="poet")
    finally:
        app.change = None
    assert row in [each.name for each in results if each.outcome == "failed"]
    assert "passed" in [each.outcome for each in results]


def test_the_command_tells_and_counts(served: tuple[str, Wrong]) -> None:
    command = [sys.executable, "-m", "thrifty.testing.conformance", served[0], "--protocol", "oip"]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["counts"] == {"passed": len(found["rows"])}
    none = subprocess.run([*command[:3], "127.0.0.1:1", *command[4:]], capture_output=True, text=True, timeout=120)
    assert none.returncode == 2
    assert "no answer from 127.0.0.1:1" in none.stderr


def test_what_does_not_apply_is_said(served: tuple[str, Wrong]) -> None:
    results = check_server(served[0], "tfs")
    assert [(each.name, each.outcome) for each in results][-1] == ("a model's own rows", "not applicable")


def test_an_unknown_protocol_is_told() -> None:
    with pytest.raises(JobError, match="unknown protocol 'tf'"):
        check_server("http://127.0.0.1:1", "tf")
