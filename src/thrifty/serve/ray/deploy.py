"""Start replicas under Ray Serve, here or on a cluster that runs already, and end them when told to."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thrifty.errors import BundleError, JobError, MissingExtraError
from thrifty.export.check import INFO, read_info, sha256
from thrifty.serve.keys import Keys
from thrifty.serve.labels import Labels, check_labels
from thrifty.serve.limits import Limits
from thrifty.serve.logs import LogFormat
from thrifty.serve.ray.cluster import joined, prepare
from thrifty.serve.ray.cores import cores_each
from thrifty.serve.ray.replica import Order, Replica, served
from thrifty.serve.server import bind, warn_of_strangers
from thrifty.spec import BundleInfo

NAME = "thrifty"  # of the application in the cluster
HEALTH_SECONDS = 1.0  # between two looks at a replica; Ray gives it up after three that fail, at once when it died
_HEALTH_PATIENCE_SECONDS = 30.0
_KEEP_ALIVE_SECONDS = 75
_STARTS = 2  # of replicas that fail before they are ready, after which none is expected to come up
# of proxies in a cluster of this process' own
_SERVE = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "thrifty.serve.ray.door.middlewares"}


def serve(
    folders: Sequence[Path],
    *,
    replicas: int,
    address: str | None,
    host: str,
    port: int,
    limits: Limits,
    labels: Labels,
    keys: Keys | None,
    log_format: LogFormat | None,
    ready: Callable[[str, int], None],
) -> None:
    """Serve until SIGINT or SIGTERM; what was accepted by then is still answered.

    Args:
        folders: of bundles, found on every node under the same paths.
        replicas: each with all bundles, in processes and on cores of its own.
        address: of a cluster to join, as ``ray.init`` takes it; None begins one on this machine, for itself alone.
        host: that proxies listen on; of a cluster whose Serve runs already, its own holds.
        port: 0 takes one that is free here.
        limits: of each replica.
        labels: of versions.
        keys: that are taken; None lets all in.
        log_format: of the log of all requests.
        ready: told the address and the port once every replica has answered a first row.

    Raises:
        MissingExtraError: Ray is not installed.
        JobError: the replicas do not fit, the address cannot be had, or the bundles cannot be served together.
        BundleError: a bundle is damaged, or does not answer.
    """
    if replicas < 1:
        raise JobError(f"{replicas} replicas answer nobody", mend="Ask for one or more.")
    infos = _check(folders, labels)
    prepare(address)
    os.environ.update(_SERVE if address is None else {})
    try:
        import ray
        from ray import serve as ray_serve
        from ray.serve.config import HTTPOptions
        from ray.serve.schema import LoggingConfig
    except ImportError:
        raise MissingExtraError("serving by Ray", package="ray", extra="ray") from None
    if address is None:
        with bind(host, port) as listener:
            port = listener.getsockname()[1]
    warn_of_strangers(host, keys)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    bundles = tuple((folder.absolute(), sha256(folder / INFO)) for folder in folders)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    writes = any(info.task == "language" for info in infos)
    longest = limits.body_seconds + (
        max(limits.deadline_seconds, limits.text_seconds) if writes else limits.deadline_seconds
    )
    with joined(ray, address), _stopped() as stop:
        each = cores_each([int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]], replicas)
        order = Order(bundles, each, limits, labels, keys, log_format)
        options = HTTPOptions(host=host, port=port, request_timeout_s=longest, keep_alive_timeout_s=_KEEP_ALIVE_SECONDS)
        ray_serve.start(proxy_location="EveryNode", http_options=options, logging_config=quiet)
        # its types say a function that makes a deployment, which it returns without arguments alone
        plain: Any = ray_serve.deployment(ray_serve.ingress(served)(Replica))
        deployment = plain.options(
            name=NAME,
            num_replicas=replicas,
            ray_actor_options={"num_cpus": each},
            max_ongoing_requests=limits.queue_rows,
            max_queued_requests=limits.queue_rows,
            max_constructor_retry_count=_STARTS,
            graceful_shutdown_wait_loop_s=0.1,
            graceful_shutdown_timeout_s=limits.drain_seconds,
            health_check_period_s=HEALTH_SECONDS,
            health_check_timeout_s=_HEALTH_PATIENCE_SECONDS,
            logging_config=quiet,
        )
        try:
            ray_serve.run(deployment.bind(order), name=NAME, route_prefix="/")
        except RuntimeError as error:
            raise BundleError(f"the replicas do not come up: {_reason(ray_serve) or error}") from None
        try:
            ready(host, port)
            stop.wait()
        finally:
            ray_serve.delete(NAME)
            if address is None:
                ray_serve.shutdown()


def _check(folders: Sequence[Path], labels: Labels) -> list[BundleInfo]:
    """Read what is to be served, and refuse here what every replica would refuse on its node."""
    versions: dict[str, list[int]] = {}
    infos = [read_info(folder) for folder in folders]
    for info in infos:
        if info.version in versions.setdefault(info.name, []):
            raise JobError(
                f"two bundles are named '{info.name}' version {info.version}",
                mend="Serve one of them, or write one under another name or version.",
            )
        versions[info.name].append(info.version)
    if not folders:
        raise JobError("there is no bundle to serve", mend="Name at least one bundle folder.")
    check_labels(labels, versions)
    return infos


def _reason(ray_serve: Any) -> str:
    """What the last replica that failed said of it, out of the trace that Ray keeps; empty where it says nothing."""
    application = ray_serve.status().applications.get(NAME)
    traces = [] if application is None else [each.message for each in application.deployments.values()]
    said = [line for trace in traces for line in trace.splitlines() if line.startswith("thrifty.errors.")]
    return said[-1].partition(": ")[2].rstrip(".") if said else ""


@contextmanager
def _stopped() -> Iterator[threading.Event]:
    """Give what is set once the process is told to end; Ray's own handlers would end it at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, lambda number, frame: stop.set()) for each in stops]
    try:
        yield stop
    finally:
        for each, handler in zip(stops, before, strict=True):
            signal.signal(each, handler)
