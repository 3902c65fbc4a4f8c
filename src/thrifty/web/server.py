"""Run the pages' server in this process until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import uvicorn

from thrifty.api import open_ledger
from thrifty.errors import ThriftyError
from thrifty.serve.server import bind, is_loopback, quiet_signals
from thrifty.web.app import app
from thrifty.web.guard import new_token
from thrifty.web.site import Site

logger = logging.getLogger("thrifty.web")

_BACKLOG = 128
# what still plans then is ended
_STOP_SECONDS = 1


def serve(*, host: str, port: int, runs: Path, folder: Path, ready: Callable[[str], None]) -> None:
    """Serve until told to stop; `thrifty.web.run` says the rest."""
    with closing(open_ledger(runs)):
        pass  # what is wrong with it is told here, before anybody looks
    site = Site(runs=runs, folder=folder, token=new_token())
    listener = bind(host, port)
    if not is_loopback(host):
        logger.warning("showing runs on %s: whoever reaches this machine can look; who acts needs the address", host)
    with listener, quiet_signals(), closing(site):
        server = uvicorn.Server(config_of(site, host))
        listener.listen(_BACKLOG)
        # a large ledger takes a second to read: meanwhile a browser is opened
        threading.Thread(target=_look_ahead, args=(site,), name="thrifty-ledger", daemon=True).start()
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listener.getsockname()[1]}/#token={site.token}")
        server.run(sockets=[listener])


def _look_ahead(site: Site) -> None:
    with contextlib.suppress(ThriftyError):  # told by the page that is asked for
        site.lines()


def config_of(site: Site, host: str) -> uvicorn.Config:
    """Settings of uvicorn: nothing on stdout, no log set up, a stop that does not wait for those who look."""
    return uvicorn.Config(
        app(site, host),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
