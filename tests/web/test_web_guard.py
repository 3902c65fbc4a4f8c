"""Who may ask: the host that was meant, this origin alone, and for actions the token; every answer has the policy."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from made_site import Shown

from thrifty.errors import StorageError
from thrifty.web import run
from thrifty.web.guard import is_ours

PATHS = ("/", "/plan", "/ledger", "/studies", "/served", "/static/ui.css", "/no/such/page", "/runs/999")


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_carries_the_policy(shared: Shown, path: str) -> None:
    reply = shared.client.get(path)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in reply.headers
    assert "set-cookie" not in reply.headers
    assert shared.site.token not in reply.text
    assert reply.status_code == (404 if path in PATHS[-2:] else 200)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8600", "127.0.0.1.evil.example", "10.0.0.7:8600", ""])
def test_a_name_that_was_made_to_point_here_is_refused(shared: Shown, host: str) -> None:
    reply = shared.client.get("/", headers={"host": host})
    assert reply.status_code in (400, 403)
    assert "Runs" not in reply.text


@pytest.mark.parametrize("host", ["localhost:8600", "localhost", "127.0.0.1:1", "[::1]:8600"])
def test_names_of_this_machine_are_heard(shared: Shown, host: str) -> None:
    assert shared.client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("said", "listening", "ours"),
    [
        ("box.example:8600", "0.0.0.0", False),
        ("192.168.0.7:8600", "0.0.0.0", True),
        ("box.example", "box.example", True),
        ("[fe80::1]:8600", "::", True),
        ("192.168.0.7", "localhost", False),
    ],
    ids=["a name", "an address", "the name it was given", "an address of six", "of loopback"],
)
def test_beyond_loopback_addresses_alone_are_ours(said: str, listening: str, ours: bool) -> None:
    assert is_ours(said, listening) is ours


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_another_origin_is_refused(shared: Shown, numbers: dict[str, int], origin: str, method: str) -> None:
    headers = {"origin": origin, "x-thrifty-token": shared.site.token}
    path = f"/runs/{numbers['now']}/{'live' if method == 'GET' else 'steer'}"
    reply = shared.client.request(method, path, headers=headers, json={"ask": "stop"} if method == "POST" else None)
    assert (reply.status_code, reply.text) == (403, "a page of another origin asked.")
    assert not (shared.site.runs / "now" / "control.json").exists()


def test_what_a_foreign_page_embeds_is_refused_and_a_link_is_followed(shared: Shown) -> None:
    foreign = {"sec-fetch-site": "cross-site"}
    assert shared.client.get("/", headers={**foreign, "sec-fetch-mode": "no-cors"}).status_code == 403
    assert shared.client.get("/", headers={**foreign, "sec-fetch-mode": "navigate"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"x-thrifty-token": "guessed"}, "may look and not act"),
        ({"x-thrifty-token": ""}, "may look and not act"),
    ],
    ids=["guessed", "none"],
)
def test_without_the_token_nothing_is_done(
    shared: Shown, numbers: dict[str, int], headers: dict[str, str], says: str
) -> None:
    reply = shared.act(f"/runs/{numbers['now']}/steer", {"ask": "stop"}, **headers)
    assert reply.status_code == 403 and says in reply.text
    assert not (shared.site.runs / "now" / "control.json").exists()


def test_an_action_says_its_origin(shared: Shown, numbers: dict[str, int]) -> None:
    headers = {"x-thrifty-token": shared.site.token}
    reply = shared.client.post(f"/runs/{numbers['now']}/steer", json={"ask": "stop"}, headers=headers)
    assert (reply.status_code, reply.text) == (403, "an action says no origin.")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"ask": 7}', "application/json", 400),
        (b"{}", "application/json", 400),
        (b"ask=stop", "application/x-www-form-urlencoded", 415),
        (b'"' + b"x" * 20_000 + b'"', "application/json", 413),
        (b"\xff\xfe", "application/json", 400),
    ],
    ids=["cut", "a list", "a number", "nothing", "a form", "too large", "no text"],
)
def test_a_body_that_is_no_action_is_told(
    shared: Shown, numbers: dict[str, int], content: bytes, kind: str, status: int
) -> None:
    headers = {"origin": shared.url, "x-thrifty-token": shared.site.token, "content-type": kind}
    reply = shared.client.post(f"/runs/{numbers['now']}/steer", content=content, headers=headers)
    assert reply.status_code == status
    assert reply.json()["error"]


def test_other_methods_are_refused(shared: Shown) -> None:
    headers = {"origin": shared.url, "x-thrifty-token": shared.site.token}
    for method in ("PUT", "DELETE", "POST"):
        reply = shared.client.request(method, "/", headers=headers)
        assert reply.status_code == 405


def test_files_beside_the_pages_are_not_served(shared: Shown) -> None:
    for name in ("../app.py", "..%2Fapp.py", "page.html", "ui.css/../../app.py"):
        assert shared.client.get(f"/static/{name}").status_code == 404


@pytest.mark.slow
def test_a_newer_ledger_is_told_and_left_alone(site: Shown, few: dict[str, int], tmp_path: Path) -> None:
    path = site.site.runs / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE thrifty_schema SET version = 99")
    for page in ("/", "/ledger", f"/runs/{few['digits']}", f"/compare?run={few['digits']}&run={few['wider']}"):
        reply = site.client.get(page)
        assert reply.status_code == 500, page
        assert "was written by a newer thrifty (layout 99, this one reads" in reply.text
    with pytest.raises(StorageError, match="newer thrifty"):
        run(host="127.0.0.1", port=0, runs=site.site.runs, folder=tmp_path, ready=print)
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT version FROM thrifty_schema").fetchall() == [(99,)]
        assert database.execute("SELECT count(*) FROM runs").fetchall() == [(len(few),)]
