"""What runs in each replica: cores taken, bundles checked and warm before it is asked, its health our readiness."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from thrifty.errors import BundleError
from thrifty.export.check import INFO, sha256
from thrifty.serve.http import Message, Receive, Send
from thrifty.serve.keys import Keys
from thrifty.serve.labels import Labels
from thrifty.serve.limits import Limits
from thrifty.serve.logs import LogFormat
from thrifty.serve.ray.cores import own_cores
from thrifty.serve.ray.door import MARK


@dataclass(frozen=True)
class Order:
    """What every replica serves; goes to each of them as it is.

    Attributes:
        bundles: folders, as they are found on every node, and the sha256 of each one's description.
        cores: that each replica owns.
        limits: of each replica.
        labels: of versions.
        keys: that are taken, as hashes; None lets all in.
        log_format: of the log of requests, which goes to the replica's stderr.
    """

    bundles: tuple[tuple[Path, str], ...]
    cores: int
    limits: Limits
    labels: Labels
    keys: Keys | None
    log_format: LogFormat | None


class Served:
    """The ASGI application of a replica; its answers carry the replica's name."""

    def __init__(self, order: Order) -> None:
        from thrifty.serve.asgi import App
        from thrifty.serve.gate import Gate
        from thrifty.serve.logs import set_up
        from thrifty.serve.workers import has_processes
        from thrifty.serve.workers.nursery import Nursery, needs

        if order.log_format is not None:
            set_up(order.log_format)
        folders = [folder for folder, _ in order.bundles]
        for folder, told in order.bundles:
            if sha256(folder / INFO) != told:
                raise BundleError(
                    f"the bundle in '{folder}' of this node is another one", mend="Give every node the same folders."
                )
        self._nursery = Nursery(needs(folders)) if has_processes() else None
        self._name = f"{os.uname().nodename}-{os.getpid()}".encode()
        self.app = App(
            folders,
            order.limits,
            labels=order.labels,
            nursery=self._nursery,
            gate=Gate(order.keys, logs=order.log_format is not None),
        )

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or follow the replica's start and stop."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (MARK, self._name)]}
            await send(message)

        await self.app(scope, receive, marked)
        if scope["type"] == "lifespan" and self._nursery is not None:
            await asyncio.to_thread(self._nursery.close)


_served: list[Served] = []  # of this process: a replica has one of its own


def served() -> Served:
    """Return the application that this process' replica has made."""
    return _served[-1]


def close_side_door() -> None:
    """Have this replica take no calls from other replicas, of which there are none here.

    Ray has every replica listen for them on all addresses, without a password, and unpickles what it hears
    (``_on_initialized`` in ray/serve/_private/replica.py, 2.60), whether or not proxies ask that way.

    Raises:
        RuntimeError: this Ray opens its ports in another way.
    """
    import ray
    from ray.serve._private import constants, replica

    if not hasattr(replica, "add_port_to_grpc_server"):
        raise RuntimeError(f"which ports the replicas of Ray {ray.__version__} open is not known; install 2.60")
    if not (constants.RAY_SERVE_USE_GRPC_BY_DEFAULT or constants.RAY_SERVE_PROXY_USE_GRPC):
        replica.add_port_to_grpc_server = lambda server, address: 0


class Replica:
    """What Ray holds of a replica: it makes the application, and says how it does."""

    def __init__(self, order: Order) -> None:
        self._limits, self._warm = order.limits, False
        close_side_door()
        own_cores(order.cores)
        _served.append(Served(order))

    async def check_health(self) -> None:
        """Wait for the first answers, then say whether every model still gives them.

        Raises:
            BundleError: one does not; after three times in a row another replica takes this one's place.
        """
        app = served().app
        app.start()
        if not self._warm:
            until = time.monotonic() + self._limits.warm_seconds
            for model in app.models:
                await asyncio.to_thread(model.wait_until_warm, max(0.0, until - time.monotonic()))
            self._warm = True
        if silent := [model.label for model in app.models if not model.ready]:
            raise BundleError(f"no answer of {', '.join(silent)}")
