"""`thrifty ui` as a process: it prints an address that lets its reader act, and ends when it is told to."""

from __future__ import annotations

import json
import select
import signal
import sys
from pathlib import Path

import httpx
import pytest

from thrifty.errors import MissingExtraError
from thrifty.web import run

sys.path.insert(0, str(Path(__file__).parent.parent))
import forked


@pytest.mark.slow
def test_the_printed_address_opens_and_acts(tmp_path: Path) -> None:
    with forked.start(["-m", "thrifty", "ui", "--port", "0", "--json"], cwd=tmp_path) as process:
        assert process.stdout is not None and select.select([process.stdout], [], [], 60)[0]
        url, _, token = json.loads(process.stdout.readline())["url"].partition("/#token=")
        assert len(token) == 32
        reply = httpx.get(f"{url}/")
        assert "There is no run yet" in reply.text
        headers = {"origin": url, "x-thrifty-token": token}
        assert httpx.post(f"{url}/served", json={"address": "ftp://x"}, headers=headers).status_code == 400
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=30)
    assert (process.returncode, said, errors) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--port", "99999"], "port 99999 does not exist"), (["--host", "no.such.host.invalid"], "cannot serve on")],
    ids=["port", "host"],
)
def test_an_address_that_cannot_be_had_is_told(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = forked.run(["-m", "thrifty", "ui", *arguments], cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_without_starlette_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrifty.web.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'thrifty\[ui\]'"):
        run(host="127.0.0.1", port=0, runs=tmp_path, folder=tmp_path, ready=print)
