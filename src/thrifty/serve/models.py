"""The models a server answers with: each bundle with its worker, found by name and version."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thrifty.errors import JobError, RequestError
from thrifty.serve.batcher import Batcher
from thrifty.serve.http import Reply
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics

if TYPE_CHECKING:
    from thrifty.export.bundle import Bundle

# whole numbers that a request may ask for beside its input
_LEAST = {"max_tokens": 1, "top_k": 1, "seed": 0, "beam": 1}


@dataclass(frozen=True)
class Ask:
    """A parsed request: the rows to compute, and what makes the reply of their answers."""

    rows: list[Any]
    reply: Callable[[list[Any]], Reply]


class Model:
    """One bundle and the worker that owns it."""

    def __init__(self, bundle: Bundle, limits: Limits, metrics: Metrics) -> None:
        self.bundle, self.limits = bundle, limits
        self.name, self.version = bundle.info.name, bundle.info.version
        self.label = f"{self.name}:{self.version}"
        self.form = bundle.form
        self._warm: Future[list[Any]] | None = None
        self.batcher = Batcher(
            self.form.answers,
            name=self.label,
            batch_rows=1 if self.form.alone else limits.batch_rows,
            queue_rows=limits.queue_rows,
            hung_after_seconds=limits.deadline_seconds,
            on_batch=lambda rows, seconds: metrics.batch_done(self.label, rows, seconds),
        )
        metrics.queue_rows.labels(self.label).set_function(lambda: self.batcher.waiting_rows)

    def start(self) -> None:
        """Start the worker and ask it one made-up row, which loads kernels and proves that it answers."""
        if self._warm is None:
            self.batcher.start()
            self._warm = self.batcher.submit([self.form.made_up()], deadline=math.inf)

    @property
    def ready(self) -> bool:
        """Whether a real answer was computed and the worker is still fit to compute more."""
        warm = self._warm is not None and self._warm.done() and self._warm.exception() is None
        return warm and self.batcher.healthy

    def submit(self, rows: list[Any]) -> Future[list[Any]]:
        """Queue rows with the deadline of this server."""
        return self.batcher.submit(rows, deadline=time.monotonic() + self.limits.deadline_seconds)

    def check_rows(self, count: int) -> None:
        """Refuse a request of too many rows, in TensorFlow Serving's words."""
        most = self.limits.request_rows
        if count > most:
            raise RequestError(f"Task size {count} is larger than maximum input batch size {most}")

    @property
    def input(self) -> str:
        """The name of the raw input."""
        return next(iter(self.form.inputs))

    @property
    def options(self) -> tuple[str, ...]:
        """What a request may ask for beside its input."""
        return tuple(key for key in self.form.options if key == "temperature" or key in _LEAST)

    def row(self, raw: Any, options: Mapping[str, Any]) -> Any:
        """Make a row of a raw input, bytes of a file, text or cells, and the options that came with it."""
        if self.form.takes == "row" and isinstance(raw, dict):
            return self.form.row(raw)
        if self.form.takes != "bytes":
            if not isinstance(raw, str):
                raise RequestError(f"A {self.input} must be a string")
            if len(raw.encode("utf-8", "surrogatepass")) > self.limits.prompt_bytes:
                raise RequestError(f"A {self.input} has over {self.limits.prompt_bytes} bytes")
        self._check_options(options)
        own = {"max_pixels": self.limits.max_pixels} if "max_pixels" in self.form.options else {}
        return self.form.row(raw, **own, **options)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        most = {"max_tokens": self.limits.max_tokens, "top_k": 2**31 - 1, "seed": 2**63 - 1, "beam": self.limits.beam}
        for key, value in options.items():
            if key == "temperature":
                number = isinstance(value, int | float) and not isinstance(value, bool)
                if not (number and 0 <= value <= 100):
                    raise RequestError("temperature must be a number from 0 to 100")
            else:
                whole = isinstance(value, int) and not isinstance(value, bool)
                if not (whole and _LEAST[key] <= value <= most[key]):
                    raise RequestError(f"{key} must be a whole number from {_LEAST[key]} to {most[key]}")


class Models:
    """All models of a server; the latest version of a name answers unless one is asked for.

    Raises:
        JobError: two bundles have the same name and version, or there is none.
    """

    def __init__(self, bundles: Sequence[Bundle], limits: Limits, metrics: Metrics) -> None:
        self._by_name: dict[str, dict[int, Model]] = {}
        for bundle in bundles:
            versions = self._by_name.setdefault(bundle.info.name, {})
            if bundle.info.version in versions:
                raise JobError(
                    f"two bundles are named '{bundle.info.name}' version {bundle.info.version}",
                    mend="Serve one of them, or write one under another name or version.",
                )
            versions[bundle.info.version] = Model(bundle, limits, metrics)
        if not self._by_name:
            raise JobError("there is no bundle to serve", mend="Name at least one bundle folder.")

    def __iter__(self) -> Any:
        return (model for versions in self._by_name.values() for model in versions.values())

    def versions(self, name: str) -> list[Model]:
        """All versions of a name, the latest first; empty for an unknown name."""
        found = self._by_name.get(name, {})
        return [found[version] for version in sorted(found, reverse=True)]

    def find(self, name: str, version: int | None) -> Model | None:
        """One version of a name, or its latest."""
        found = self.versions(name)
        if version is None:
            return found[0] if found else None
        return self._by_name.get(name, {}).get(version)


def finite(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pass answers on, or refuse with 500 those that JSON cannot say: NaN and infinity are no numbers there."""
    import numpy as np

    numbers = [value for row in answers for value in row.values() if not isinstance(value, str)]
    if not all(bool(np.isfinite(value).all()) for value in numbers):
        raise RequestError("The model answered with NaN or infinity", status=500)
    return answers


def plain(value: Any) -> Any:
    """Make of an array the lists that JSON has."""
    return value if isinstance(value, str | int | float) else value.tolist()
