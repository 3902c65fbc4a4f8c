"""The command that a server tells is one that a shell can run: its body is what the model takes."""

from __future__ import annotations

import json
import shlex
from typing import Any

import httpx
import pytest
from made_bundles import pixels, png

from thrifty.export.bundle import Bundle
from thrifty.serve.example import command


def asked(bundle: Bundle, file: str = "") -> list[str]:
    text = command(bundle.info, "http://localhost:1")
    return shlex.split(text.replace("'$(base64 -w0 FILE)'", file))


@pytest.mark.parametrize("kind", ["pets", "critic", "poet"])
def test_the_command_asks_the_model(kind: str, request: pytest.FixtureRequest, client: httpx.Client) -> None:
    import base64

    words = asked(request.getfixturevalue(kind), base64.b64encode(png(pixels(1))).decode())
    assert words[0] == "curl" and words[2] == "-d"
    body: dict[str, Any] = json.loads(words[3])
    reply = client.post(words[1].removeprefix("http://localhost:1"), json=body)
    assert reply.status_code == 200, reply.text
    assert len(reply.json()["predictions"]) == 1
