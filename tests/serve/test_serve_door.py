"""What stands before replicas: what a lost one did not answer is asked again, once the whole body is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.errors import JobError
from thrifty.serve.http import Message, Receive, Send
from thrifty.serve.ray import door
from thrifty.serve.ray.cores import cores_each
from thrifty.serve.ray.door import KEPT_BYTES, MARK, TRIES, Door

LOST, SILENT, FULL, LATE, ECHO, BROKEN = "lost", "silent", "full", "late", "echo", "broken"


class Proxy:
    """Answers as Ray's proxy does: by what a replica says, or for itself."""

    def __init__(self, *turns: str) -> None:
        self.turns = list(turns)
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        turn = self.turns.pop(0)
        if turn == SILENT:
            return
        status = {LOST: 500, FULL: 503, LATE: 408, ECHO: 200, BROKEN: 500}[turn]
        headers = [(b"x-request-id", b"7"), (b"x-request-id", b"7")] if turn in (ECHO, BROKEN) else []
        headers += [(MARK, b"a")] if turn in (ECHO, BROKEN) else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def ask(proxy: Proxy, parts: list[bytes]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    standing = Door(proxy)
    scope = {"type": "http", "path": "/v2", "headers": []}
    asyncio.run(standing(scope, receive, send))
    assert standing._held == 0
    assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[0]["headers"], sent[1]["body"]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_PAUSE_SECONDS", 0.0)


@given(
    parts=st.lists(st.binary(max_size=20), min_size=1, max_size=5),
    losses=st.integers(0, TRIES - 1),
    how=st.sampled_from([LOST, SILENT]),
)
def test_what_was_lost_is_asked_again_with_the_whole_body(parts: list[bytes], losses: int, how: str) -> None:
    proxy = Proxy(*[how] * losses, ECHO)
    status, headers, body = ask(proxy, parts)
    assert (status, body) == (200, b"".join(parts))
    assert proxy.bodies == [b"".join(parts)] * (losses + 1)
    assert [name for name, _ in headers].count(b"x-request-id") == 1


@pytest.mark.parametrize(
    ("turns", "status", "said"),
    [
        ([BROKEN], 500, b""),
        ([FULL], 503, b"No replica has room"),
        ([LATE], 504, b"Deadline exceeded"),
        ([LOST] * TRIES, 503, b"No replica has room"),
        ([SILENT] * TRIES, 503, b"No replica has room"),
    ],
    ids=["a replica's own error", "full", "late", "lost again", "silent again"],
)
def test_what_is_refused_is_said_in_our_words(turns: list[str], status: int, said: bytes) -> None:
    proxy = Proxy(*turns)
    got, headers, body = ask(proxy, [b""])
    assert (got, said in body, proxy.turns) == (status, True, [])
    assert (status == 503) == ((b"retry-after", b"1") in headers)


def test_who_left_is_not_asked_for_again() -> None:
    proxy = Proxy(SILENT, ECHO)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    asyncio.run(Door(proxy)({"type": "http", "path": "/v2", "headers": []}, receive, send))
    assert proxy.turns == [ECHO]


@pytest.mark.parametrize("full", [False, True])
def test_a_body_that_is_not_kept_goes_through_once(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if full:
        monkeypatch.setattr(door, "HELD_BYTES", 10)
    parts = [b"x" * 8, b"x" * (8 if full else KEPT_BYTES), b"end"]
    assert ask(Proxy(ECHO), parts)[2] == b"".join(parts)
    assert ask(proxy := Proxy(LOST, ECHO), parts)[0] == 503
    assert proxy.turns == [ECHO]


def test_replicas_share_the_cores_of_their_nodes() -> None:
    assert cores_each([16, 16], 3) == 8
    assert cores_each([2], 1) == 2
    with pytest.raises(JobError, match="3 replicas do not fit on 2 cores"):
        cores_each([2], 3)
    with pytest.raises(JobError, match="1 replicas do not fit on 0 cores"):
        cores_each([], 1)


_OWNER = """
import os, sys
from pathlib import Path
from thrifty.serve.ray.cores import own_cores
print(own_cores(int(sys.argv[1]), Path(sys.argv[2])), sorted(os.sched_getaffinity(0)), flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_cores_are_owned_until_their_owner_ends(tmp_path: Any) -> None:
    import os
    import subprocess
    import sys

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("there is one core alone")

    def owner(count: int) -> tuple[subprocess.Popen[str], list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-c", _OWNER, str(count), str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        owned, kept = process.stdout.readline().strip().split("] [")
        assert owned.strip("[]") == kept.strip("[]")
        return process, [int(core) for core in owned.strip("[]").split(", ")]

    first, has = owner(1)
    second, other = owner(len(cores) - 1)
    assert sorted(has + other) == cores
    first.kill()
    first.communicate()
    third, again = owner(1)
    assert again == has
    fourth, shared = owner(1)
    assert set(shared) <= set(cores)
    for process in (second, third, fourth):
        process.communicate("")
