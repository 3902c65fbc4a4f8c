"""`thrifty.serve.run` as a process: its port, its silence, its stop; and what importing it loads."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from made_bundles import write_sound_bundle, write_table_bundle

from thrifty import serve
from thrifty.errors import JobError
from thrifty.export.bundle import Bundle
from thrifty.serve import server

SOON = 60.0

CHILD = textwrap.dedent(
    """
    import sys, time
    from thrifty import serve
    from thrifty.export.bundle import load_bundle
    from thrifty.export.forms.images import Images

    class Slow(Images):
        def probabilities(self, images):
            time.sleep(0.3)
            return super().probabilities(images)

    bundle = load_bundle(sys.argv[1])
    bundle.form = Slow(bundle.info, bundle.model, None)
    serve.run([bundle], port=0, ready=lambda host, port: print(host, port, file=sys.stderr, flush=True))
    print("returned", file=sys.stderr)
    """
)


@contextmanager
def child(bundle: Bundle) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-c", CHILD, str(bundle.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        host, port = process.stderr.readline().split()
        try:
            yield process, f"http://{host}:{port}"
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_was_accepted(pets: Bundle, stop: signal.Signals) -> None:
    with child(pets) as (process, url), ThreadPoolExecutor(4) as pool:
        until = time.monotonic() + SOON
        while httpx.get(f"{url}/v2/health/ready").status_code != 200:
            assert time.monotonic() < until
        body = {"instances": [[[[1, 2, 3]] * 16] * 16]}
        asked = [pool.submit(httpx.post, f"{url}/v1/models/pets:predict", json=body, timeout=SOON) for _ in range(4)]
        time.sleep(0.2)
        process.send_signal(stop)
        assert [each.result(SOON).status_code for each in asked] == [200] * 4
        assert process.wait(SOON) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        assert (process.stdout.read(), process.stderr.read().strip()) == ("", "returned")


def test_an_address_that_is_taken_is_named(pets: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(JobError, match=f"cannot serve on 127.0.0.1 port {port}.*port 0 takes a free one"):
            serve.run([pets], port=port)
    with pytest.raises(JobError, match="port 70000 does not exist"):
        serve.run([pets], port=70_000)
    with pytest.raises(JobError, match=r"cannot serve on no\.such\.host\.invalid"):
        serve.run([pets], host="no.such.host.invalid")


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)]
)
def test_others_are_let_in_with_a_word(
    pets: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str, loopback: bool
) -> None:
    monkeypatch.setattr(server.Server, "run", lambda self, sockets: None)
    with caplog.at_level(logging.WARNING, "thrifty.serve"):
        serve.run([pets], host=host, port=0)
    assert ("there is no password" in caplog.text) == (not loopback)


@pytest.mark.slow
def test_serving_loads_nothing_of_training() -> None:
    probe = textwrap.dedent(
        """
        import sys
        import thrifty.serve
        early = [name for name in ("torch", "cv2", "numpy", "uvicorn") if name in sys.modules]
        import thrifty.serve.asgi, thrifty.serve.server, thrifty.export.bundle, thrifty.export.weights
        rooms = sorted({name.split(".")[1] for name in sys.modules if name.startswith("thrifty.")})
        print(early, rooms)
        """
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=Path.home())
    early, rooms = done.stdout.split("] [")
    assert early == "["
    assert not {"train", "optim", "planner", "tune", "ledger"} & set(rooms.replace("'", "").strip("]\n").split(", "))


@pytest.mark.slow
def test_who_makes_rows_alone_loads_no_torch(pets: Bundle, critic: Bundle, tmp_path: Path) -> None:
    write_table_bundle(tmp_path / "rich", labels=("poor", "rich"))
    write_sound_bundle(tmp_path / "heard", task="classify")
    folders = [str(each) for each in (pets.folder, critic.folder, tmp_path / "rich", tmp_path / "heard")]
    probe = (
        "import sys; from thrifty.export.bundle import read_bundle; kinds = [read_bundle(each).info.data.kind for each"
    )
    probe += " in sys.argv[1:]]; print(kinds, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe, *folders], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['image', 'text', 'table', 'audio'] False"
