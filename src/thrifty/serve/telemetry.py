"""`Telemetry`: tells a collector of OpenTelemetry about requests, as spans over OTLP by HTTP; the extra ``otel``.

A span is made once its request has been answered, of times that were noted meanwhile, so nothing waits for it. A thread
of the SDK sends spans in batches; those that a collector does not take are dropped.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit

from thrifty import __version__
from thrifty.errors import JobError, MissingExtraError
from thrifty.serve.http import CLIENT_LEFT
from thrifty.serve.spans import TRACE, Trace

logger = logging.getLogger("thrifty.serve")

SHARE = 0.1  # of requests that say nothing themselves
_PATH = "/v1/traces"
_SEND_SECONDS, _CLOSE_SECONDS = 5.0, 3.0
_EXPORTERS = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Telemetry:
    """Follows requests for models, and tells of a share of them.

    The W3C's ``traceparent`` of a request is continued, and its word on whether the trace is sampled is taken.

    Args:
        url: of the collector, such as ``http://127.0.0.1:4318``; without a path that of OTLP for traces is added.
        share: of requests without a ``traceparent`` that are told of, from 0 to 1.

    Raises:
        JobError: the URL or the share is none.
        MissingExtraError: OpenTelemetry's packages are not installed.
    """

    def __init__(self, url: str, *, share: float = SHARE) -> None:
        endpoint = _endpoint(url)
        if not 0 <= share <= 1:
            raise JobError(f"a share of {share:g} of requests cannot be traced", mend="It is from 0 to 1.")
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise MissingExtraError(
                "telling OpenTelemetry of requests", package="opentelemetry-exporter-otlp-proto-http", extra="otel"
            ) from None
        self._trace, self._propagator = trace, TraceContextTextMapPropagator()
        self._share = share
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_SEND_SECONDS)
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "thrifty", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("thrifty.serve", __version__)
        logging.getLogger(_EXPORTERS).addFilter(_SELDOM)

    def following(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> AbstractContextManager[Trace | None]:
        """Follow a request while it is answered, if it is to be told of; whoever answers sets the trace's status."""
        # asked here, for the SDK's sampler takes a tenth of a millisecond to say no
        given = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
        sampled = bool(int(given[1], 16) & 1) if given else random.random() < self._share
        return self._followed(method, path, headers) if sampled else _NOBODY

    @contextmanager
    def _followed(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Iterator[Trace]:
        found = Trace()
        token = TRACE.set(found)
        begun_ns = time.time_ns()
        try:
            yield found
        finally:
            TRACE.reset(token)
            if found.model:
                try:
                    self._tell(found, method, path, headers, begun_ns)
                except Exception:
                    logger.exception("a request could not be told to OpenTelemetry")

    def close(self) -> None:
        """Send what is left, for a few seconds at most."""
        # the SDK waits for half a minute where nobody listens
        closing = threading.Thread(target=self._provider.shutdown, name="thrifty-otel", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
        if closing.is_alive():
            self._exporter.shutdown()

    def _tell(self, found: Trace, method: str, path: str, headers: Mapping[bytes, bytes], begun_ns: int) -> None:
        def ns(at: float) -> int:
            return begun_ns + round((at - found.begun) * 1e9)

        given = {name: headers[name.encode()].decode("latin-1") for name in _W3C if name.encode() in headers}
        status = found.status or CLIENT_LEFT
        whole = self._tracer.start_span(
            f"{method} {path}",
            context=self._propagator.extract(given),
            kind=self._trace.SpanKind.SERVER,
            start_time=begun_ns,
            attributes={
                "http.request.method": method,
                "url.path": path,
                "http.response.status_code": status,
                "thrifty.model": found.model,
                "thrifty.protocol": found.protocol,
            },
        )
        if whole.is_recording():
            if status >= 500:
                whole.set_status(self._trace.StatusCode.ERROR)
            inside = self._trace.set_span_in_context(whole)
            for part in list(found.parts):
                says: dict[str, Any] = {f"thrifty.{name}": value for name, value in part.says.items()}
                span = self._tracer.start_span(part.name, context=inside, start_time=ns(part.begun), attributes=says)
                span.end(ns(part.ended))
        whole.end(ns(time.monotonic()))


_NOBODY = nullcontext()
_W3C = ("traceparent", "tracestate")
# version, trace, parent and flags, the lowest of which says that the trace is sampled (W3C Trace Context, level 1)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")


class _Seldom(logging.Filter):
    """Lets one record through a minute: a collector that is down is said once, not at each batch."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 60.0
        return True


_SELDOM = _Seldom()


def _endpoint(url: str) -> str:
    """Give the whole URL that spans are sent to.

    >>> _endpoint("http://127.0.0.1:4318"), _endpoint("https://traces.example/otlp")
    ('http://127.0.0.1:4318/v1/traces', 'https://traces.example/otlp')
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise JobError(
            f"'{url}' is no collector of OpenTelemetry", mend="Write its URL, such as http://127.0.0.1:4318."
        )
    return url.rstrip("/") + _PATH if parts.path in ("", "/") else url
