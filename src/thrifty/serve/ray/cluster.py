"""A Ray cluster to be part of: one that runs already, or one of this process alone that begins and ends with it."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thrifty.errors import JobError
from thrifty.serve.cores import here

_STORE_BYTES = 256 * 2**20  # of what passes between processes and does not fit in a message
# read by Ray as it is imported, and by all processes that it starts: nothing is reported to its makers
_ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# whoever is let in by Ray's own ports can have code run: those of a cluster of this process' own are on the loopback
# address, where Ray has them on systems that it makes no clusters on, and ask for a token
_OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",  # of what is not started again once it is gone
}


def prepare(address: str | None) -> None:
    """Set what Ray reads as it is imported: call it before.

    Args:
        address: of a cluster to join; None for one of this process' own.
    """
    os.environ.update(_ALWAYS)
    if address is None:
        os.environ.update(_OWN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)})


@contextmanager
def joined(ray: Any, address: str | None) -> Iterator[None]:
    """Be part of a cluster: of one that is told, or of one that begins and ends with this process.

    Args:
        ray: the module, imported after `prepare`.
        address: as ``ray.init`` takes it; None begins one on this machine.

    Raises:
        JobError: the cluster cannot be had.
    """
    own = {
        "address": "local",
        "num_cpus": len(here()),
        "include_dashboard": False,
        "object_store_memory": _STORE_BYTES,
    }
    try:
        ray.init(**(own if address is None else {"address": address}), logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "on this machine" if address is None else f"at '{address}'"
        raise JobError(f"no Ray cluster is to be had {where}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()
