"""The live line: figures of the last seconds on a terminal, whole log lines above it, plain lines elsewhere."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from made_bundles import pixels
from rich.console import Console

from thrifty.export.bundle import Bundle
from thrifty.serve.live import Live, plain
from thrifty.serve.metrics import Metrics

SOON = 60.0
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def busy() -> Metrics:
    metrics = Metrics()
    metrics.watch_queue("pets:1", lambda: 7)
    for _ in range(20):
        metrics.request_done("pets:1", "oip", 200, 0.004)
    metrics.batch_done("pets:1", 20, 0.1, waited=0.0, cpu_seconds=0.5)
    return metrics


def test_rates_are_of_the_last_seconds_and_the_bill_of_all() -> None:
    metrics = busy()
    live = Live(metrics, cores=2, console=Console(file=io.StringIO()))
    live._before.append((time.monotonic() - 4.0, {}))
    said = live.now()["pets:1"]
    assert float(said["req/s"]) == pytest.approx(5.0, rel=0.1)
    assert (said["p50 ms"], said["rows"], said["queue"], said["shed"]) == ("4.0", "20.0", "7", "0")
    assert 4 <= float(said["CPU"].rstrip("%")) <= 7, "half a second of two cores in four seconds"
    later = live.now()["pets:1"]
    assert later["energy"] == said["energy"]
    line = plain({"pets:1": said})
    assert line.startswith("pets:1: ")
    assert "7 waiting, 0 shed" in line


@pytest.mark.parametrize("width", [40, 80, 160])
def test_it_fits_the_terminal(width: int) -> None:
    file = io.StringIO()
    live = Live(busy(), cores=2, console=Console(file=file, width=width, force_terminal=True))
    live._before.append((time.monotonic() - 4.0, {}))
    live._console.print(live._drawn())
    lines = ESCAPES.sub("", file.getvalue()).splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert "pets:1" in lines[1]
    assert "4.0" in lines[1]
    assert ("energy" in lines[0]) == (width >= 80)


SERVE = "import sys; from thrifty.cli import main; sys.argv[0] = 'thrifty'; main()"


def ask(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for number in range(30):
            found = client.post(
                "/v1/models/pets:predict",
                json={"instances": [pixels(number).tolist()]},
                headers={"X-Request-ID": f"mine-{number}-" + "x" * 90},
            )
            assert found.status_code == 200


def drain(terminal: int, shown: bytearray) -> None:
    """Read what is written to a terminal until its other end is closed."""
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:
            return
        if not part:
            return
        shown += part


@pytest.mark.slow
def test_on_a_terminal_log_lines_stay_whole_beside_it(pets: Bundle) -> None:
    ours, theirs = pty.openpty()
    shown = bytearray()
    command = [sys.executable, "-c", SERVE, "serve", str(pets.folder), "--port", "0", "--live", "--log-format", "json"]
    environment = {**os.environ, "COLUMNS": "100", "LINES": "30", "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True) as process:
        os.close(theirs)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            reader = threading.Thread(target=drain, args=(ours, shown))
            reader.start()
            ask(url)
            time.sleep(2.5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON) == 0
            reader.join(SOON)
        finally:
            process.kill()
            os.close(ours)
    text = ESCAPES.sub("", shown.decode())
    records = [json.loads(line) for line in re.split(r"[\r\n]+", text) if line.startswith("{")]
    assert [each["id"].split("-")[1] for each in records if each.get("status") == 200] == [str(n) for n in range(30)]
    drawn = [line for line in re.split(r"[\r\n]+", text) if line.startswith("pets:1")]
    assert len(drawn) >= 2
    assert any(float(line.split()[1]) > 0 for line in drawn)


@pytest.mark.slow
def test_elsewhere_a_plain_line_goes_into_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("thrifty.serve.live.PLAIN_SECONDS", 0.05)
    file = io.StringIO()
    for logs in (False, True):
        with (
            caplog.at_level(logging.INFO, "thrifty.serve.live"),
            Live(busy(), cores=1, console=Console(file=file, width=40), logs=logs),
        ):
            until = time.monotonic() + SOON
            while not (caplog.records if logs else file.getvalue().endswith("\n")):
                assert time.monotonic() < until
                time.sleep(0.01)
        assert bool(caplog.records) == logs
    assert file.getvalue().splitlines()[0].endswith("so far")
    assert "\x1b" not in file.getvalue()
    assert "pets:1" in caplog.records[0].getMessage()
