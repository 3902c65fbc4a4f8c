"""Tests of the clients of `benchmarks.serve` against a real server, and of its figures."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from benchmarks.clients import Answer, closed_loop, open_loop, predict_body, quantile, request
from benchmarks.serve import SHARES, Case, Visit, binary, figures, table
from benchmarks.serve_peers import ALONE, SERVERS

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def against(answers: list[bytes], ask) -> tuple[list[Answer], list[bytes]]:
    """Ask a server that gives these answers in turn, and none when one is empty."""
    bodies, count = [], 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
                bodies.append(await reader.readexactly(int(length.split()[1])))
                answer = answers[count % len(answers)]
                count += 1
                writer.write(answer)
                if not answer or b"close" in answer:
                    break
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        found = await ask(server.sockets[0].getsockname()[1])
        await asyncio.sleep(0.05)  # until the server has seen that the clients left
    return found, bodies


def test_a_closed_loop_asks_all_rows_by_all_clients() -> None:
    wholes = [request("/predict", body) for body in (b"a", b"bc", b"def")]
    found, bodies = asyncio.run(against([OK], lambda port: closed_loop(port, wholes, 4, 0.2)))
    assert len(found) == len(bodies) > 8
    assert {each.status for each in found} == {200}
    assert set(bodies) == {b"a", b"bc", b"def"}
    assert all(0 < each.seconds < 1 for each in found)


def test_an_open_loop_asks_at_its_rate_whatever_comes_back() -> None:
    wholes = [request("/predict", b"a")]
    found, bodies = asyncio.run(against([OK, FULL, b""], lambda port: open_loop(port, wholes, 200, 0.3)))
    assert len(found) == len(bodies) == 60
    assert {status: sum(each.status == status for each in found) for status in (200, 503, 0)} == {
        200: 20,
        503: 20,
        0: 20,
    }


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 1.0), (0.5, 2.0), (1.0, 9.0)])
def test_a_quantile_is_one_of_the_numbers(share: float, wanted: float) -> None:
    assert quantile([9.0, 1.0, 2.0], share) == wanted


def made(name: str, capacity: float = 100.0) -> Case:
    return Case(name, Path("none"), [b""], capacity=capacity, own_s=0.002)


def visited(goodput: float, single_ms: float = 2.5, wrong: int = 0) -> Visit:
    return Visit(goodput, 10.0, 20.0, single_ms, {share: (goodput * share / 100, 3.0, 5.0) for share in SHARES}, wrong)


def test_ours_is_compared_with_the_best_of_the_others_round_by_round() -> None:
    visits = {
        "ours": [visited(90.0), visited(80.0, wrong=1)],
        "litserve": [visited(30.0), visited(40.0)],
        "fastapi": [visited(45.0), visited(20.0)],
        "mlserver": [],
    }
    found = figures(made("bert"), visits)
    assert found["serve_bert_goodput_ratio"] == [2.0, 2.0]
    assert found["serve_bert_capacity_share"] == [0.9, 0.8]
    assert found["serve_bert_single_added_ms"] == [0.5, 0.5]
    assert found["serve_bert_p99_ratio"] == [2.5, 2.5]
    assert found["serve_bert_wrong"] == [1.0]
    assert "serve_bert_goodput_mlserver" not in found
    lines = table(made("bert"), visits, dict.fromkeys(visits, ALONE)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["ours", "fastapi", "litserve", "mlserver"]
    assert "failed" in lines[-1]


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_every_server_is_asked_the_same_row(name: str) -> None:
    head, body = SERVERS[name].whole("a row").split(b"\r\n\r\n")
    assert head.startswith(b"POST /")
    assert body.count(b'"a row"') == 1
    assert b"YmM=" in SERVERS[name].whole(b"bc")


def test_a_binary_request_tells_where_its_json_ends() -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    head, body = binary(pixels).split(b"\r\n\r\n", 1)
    said = next(line for line in head.split(b"\r\n") if line.startswith(b"Inference-Header-Content-Length"))
    assert body[int(said.split()[1]) :] == pixels.tobytes()


def test_pixels_of_a_request_are_json() -> None:
    assert predict_body([[1, 2]]) == b'{"instances": [[[1, 2]]]}'
