"""Serve bundles over HTTP: TensorFlow Serving's REST API v1, the Open Inference Protocol v2 and OpenAI's routes.

``app`` gives a bare ASGI application for any server, ``run`` runs one here, ``run_replicas`` several under Ray Serve,
here or on a cluster. Nothing of training is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from thrifty.errors import JobError
from thrifty.serve.limits import Limits

if TYPE_CHECKING:
    from thrifty.export.bundle import Bundle
    from thrifty.serve.asgi import App
    from thrifty.serve.logs import LogFormat

__all__ = ["Limits", "app", "run", "run_replicas"]


def app(
    bundles: Sequence[Bundle],
    *,
    limits: Limits | None = None,
    labels: Sequence[str] = (),
    repository: str | Path | None = None,
) -> App:
    """Make the ASGI application that answers for these bundles.

    Args:
        bundles: to serve, by their names and versions.
        limits: of sizes, waiting and time.
        labels: of versions, ``stable=3`` for all models that have it or ``pets:stable=3`` for one.
        repository: folder of bundles that clients may load and unload; None lets them do neither.

    Raises:
        JobError: there is none, two have the same name and version, or a label stands for a version that is not served.
    """
    from thrifty.serve.asgi import App
    from thrifty.serve.labels import parse_labels

    return App(bundles, limits or Limits(), labels=parse_labels(labels), repository=repository)


def run(
    bundles: Sequence[Bundle | str | Path],
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    limits: Limits | None = None,
    labels: Sequence[str] = (),
    repository: str | Path | None = None,
    grpc_port: int | None = None,
    watch: str | Path | None = None,
    api_key_file: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    log_format: LogFormat | None = None,
    live: bool = False,
    otel: str | None = None,
    otel_share: float = 0.1,
    device: str = "cpu",
    ready: Callable[[str, int], None] = lambda host, port: None,
) -> None:
    """Serve until SIGINT or SIGTERM; what was accepted by then is still answered.

    Args:
        bundles: to serve, by their names and versions. Folders are computed in processes of their own, which are
            started again when they are lost, where the system is Linux; loaded ones in this process, by a thread each.
        host: address to listen on. Any but a loopback one lets others in, without a password: that is logged.
        port: 0 takes a free one.
        limits: of sizes, waiting and time.
        labels: of versions, as of `app`.
        repository: as of `app`.
        grpc_port: for TensorFlow Serving's services and the Open Inference Protocol over gRPC; None serves none.
        watch: a folder of versions, ``NAME/VERSION/``, whose latest ones are served as they come and go.
        api_key_file: of keys, one a line, beside those in ``$THRIFTY_API_KEYS``; without any all may ask.
        tls_cert, tls_key: files of a certificate's chain and its private key, in PEM; then HTTP and gRPC speak TLS.
        log_format: of the log of all requests, on stderr; None logs what goes wrong alone.
        live: tell on stderr what each model does, anew each second on a terminal.
        otel: URL of a collector of OpenTelemetry that is told of requests, by OTLP over HTTP; None tells nobody.
        otel_share: of requests without a ``traceparent`` that it is told of.
        device: that computes the bundles that come as folders: ``cpu``, or ``cuda``, where torch computes them.
        ready: told the address and the real port once the server listens and every model has answered a first row.

    Raises:
        MissingExtraError: gRPC or OpenTelemetry is asked for, and its packages are not installed.
        JobError: the address cannot be had, the certificate cannot be read, or the bundles cannot be served together or
            on the device.
    """
    from thrifty.serve.workers import has_processes
    from thrifty.serve.workers.nursery import Nursery, needs

    tls = None
    if tls_cert is not None or tls_key is not None:
        from thrifty.serve.tls import read_certificate

        tls = read_certificate(tls_cert, tls_key)
    folders = [Path(each) for each in bundles if isinstance(each, str | Path)]
    with ExitStack() as stack:
        # first of all: it loads torch while this process gets ready
        apart = bool(folders or repository or watch) and has_processes()
        if device != "cpu":
            if not apart:
                raise JobError(
                    f"device is {device}, and no bundle is computed in a process of its own here",
                    mend="Give folders of bundles, on Linux; or leave the device out.",
                )
            from thrifty.export.bundle import check_device
            from thrifty.export.check import read_info

            for folder in folders:
                check_device(device, read_info(folder))
        nursery = stack.enter_context(Nursery(needs(folders), device=device)) if apart else None

        from thrifty.serve.asgi import App
        from thrifty.serve.gate import Gate
        from thrifty.serve.keys import read_keys
        from thrifty.serve.labels import parse_labels
        from thrifty.serve.logs import set_up
        from thrifty.serve.server import serve

        if log_format is not None:
            set_up(log_format)
        telemetry = None
        if otel is not None:
            from thrifty.serve.telemetry import Telemetry

            telemetry = Telemetry(otel, share=otel_share)
        keys = read_keys(None if api_key_file is None else Path(api_key_file))
        served = App(
            bundles,
            limits or Limits(),
            labels=parse_labels(labels),
            repository=repository,
            nursery=nursery,
            watch=watch,
            gate=Gate(keys, logs=log_format is not None),
            telemetry=telemetry,
        )
        if live:
            from thrifty.serve.live import on_stderr

            stack.enter_context(on_stderr(served.metrics, logs=log_format is not None))
        serve(served, host=host, port=port, grpc_port=grpc_port, tls=tls, ready=ready)


def run_replicas(
    bundles: Sequence[str | Path],
    *,
    replicas: int,
    address: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8501,
    limits: Limits | None = None,
    labels: Sequence[str] = (),
    api_key_file: str | Path | None = None,
    log_format: LogFormat | None = None,
    ready: Callable[[str, int], None] = lambda host, port: None,
) -> None:
    """Serve by replicas under Ray Serve until SIGINT or SIGTERM; what was accepted by then is still answered.

    Args:
        bundles: folders to serve, by their names and versions, found under the same paths on every node.
        replicas: each answers for all bundles, in processes and on cores of its own.
        address: of a Ray cluster to join; None begins one here, which ends with this call.
        host, port, labels, api_key_file, log_format: as of `run`.
        limits: of each replica.
        ready: told the address and the port once every replica has answered a first row.

    Raises:
        MissingExtraError: Ray is not installed.
        JobError: the replicas do not fit on the cluster's cores, the address cannot be had, or the bundles cannot be
            served together.
        BundleError: a bundle is damaged, or gives no answer.
    """
    from thrifty.serve.keys import read_keys
    from thrifty.serve.labels import parse_labels
    from thrifty.serve.ray.deploy import serve

    serve(
        [Path(each) for each in bundles],
        replicas=replicas,
        address=address,
        host=host,
        port=port,
        limits=limits or Limits(),
        labels=parse_labels(labels),
        keys=read_keys(None if api_key_file is None else Path(api_key_file)),
        log_format=log_format,
        ready=ready,
    )
