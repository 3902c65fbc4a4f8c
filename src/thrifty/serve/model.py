"""A bundle on the server with the worker that computes it, held by whoever asks it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thrifty.errors import BundleError, RequestError, ThriftyError
from thrifty.export.check import INFO
from thrifty.export.check import sha256 as sha256_of
from thrifty.export.writing import can_write
from thrifty.serve.batcher import Batcher, OverloadError
from thrifty.serve.curve import Curve, kept_at, typical
from thrifty.serve.http import Reply
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.workers.process import Process

if TYPE_CHECKING:
    from thrifty.export.bundle import Bundle
    from thrifty.serve.generation.writer import Writer
    from thrifty.serve.workers.nursery import Nursery

# A batch that takes so many times what it should counts as hung, whatever the deadline: a machine under load is slow.
_PATIENCE, _LEAST_PATIENCE_SECONDS, _UNMEASURED_SECONDS = 30.0, 5.0, 60.0
# whole numbers that a request may ask for beside its input
_LEAST = {"max_tokens": 1, "top_k": 1, "seed": 0, "beam": 1}


@dataclass(frozen=True)
class Ask:
    """A parsed request: the rows to compute, and what makes the reply of their answers."""

    rows: list[Any]
    reply: Callable[[list[Any]], Reply]


class Model:
    """One bundle and the worker that owns it.

    Whoever is about to ask it holds it: ``hold()`` before the request is read, ``release()`` once it is answered. So
    a version that is unloaded leaves when its last request has.

    Attributes:
        input: the name of the raw input.
        columns: inputs that a request may give several of, one for each column of a table; empty where there is none.
        options: what a request may ask for beside its input.
    """

    def __init__(
        self,
        bundle: Bundle,
        limits: Limits,
        metrics: Metrics,
        nursery: Nursery | None = None,
        cores: Sequence[int] = (),
    ) -> None:
        self.bundle, self.limits, self._metrics = bundle, limits, metrics
        self.name, self.version = bundle.info.name, bundle.info.version
        self.label = f"{self.name}:{self.version}"
        self.form = bundle.form
        self.input = next(iter(self.form.inputs))
        self.columns = tuple(self.form.inputs)[1:] if self.form.takes == "row" else ()
        self.options = tuple(key for key in self.form.options if key == "temperature" or key in _LEAST)
        self._sized = {"max_pixels": limits.max_pixels} if "max_pixels" in self.form.options else {}
        self._warm: Future[list[Any]] | None = None
        self._held = 0
        self._leaving = False
        self._free = threading.Condition()
        sha256 = sha256_of(bundle.folder / INFO) if (bundle.folder / INFO).exists() else ""
        most = 1 if self.form.alone else limits.batch_rows
        kept = kept_at(sha256, len(cores), most) if sha256 and nursery is not None else None
        curve = Curve(most, limits.deadline_seconds, kept, sha256=sha256, cores=len(cores))
        writes = {"cache_bytes": limits.cache_bytes, "texts": limits.texts} if can_write(bundle.info) else None
        self._process = (
            None
            if nursery is None
            else Process(
                nursery,
                bundle.folder,
                sha256=sha256,
                needs=f"{bundle.info.engine} {bundle.info.data.kind}",
                name=self.label,
                cores=cores,
                patience=lambda rows: _patience(curve.predict(rows)),
                lost=lambda how: metrics.worker_lost(self.label, how),
                writes=writes,
            )
        )
        self._cpu_seconds = 0.0
        self.writer = None if writes is None else writer_of(bundle, self._process, self.label, limits, metrics)
        self.batcher = self.writer or Batcher(
            self._process or self.form.answers,
            name=self.label,
            batch_rows=most,
            queue_rows=limits.queue_rows,
            deadline_seconds=limits.deadline_seconds,
            hung_after_seconds=limits.deadline_seconds,
            curve=curve,
            probe=self.form.made_up,
            typical=None
            if self.form.alone or nursery is None
            else lambda: typical(self.form.made_up(), bundle.info.data.shape[0]),
            probe_seconds=limits.probe_seconds,
            on_batch=self._count,
            posts=self._process,
        )

    def start(self) -> None:
        """Start the worker and ask it one made-up row, which loads kernels and proves that it answers."""
        if self._warm is None:
            self.batcher.start()
            self._warm = self.batcher.submit([self.form.made_up()], deadline=math.inf)

    def wait_until_warm(self, seconds: float) -> None:
        """Start, and wait for the first answer.

        Raises:
            BundleError: it fails, or takes longer than this.
        """
        self.start()
        assert self._warm is not None
        try:
            self._warm.result(seconds)
        except NotYetError:
            raise BundleError(f"model '{self.label}' gave no first answer within {seconds:g} s") from None
        except ThriftyError as error:
            raise BundleError(f"model '{self.label}' fails on a made-up input: {error.what}") from None

    def hold(self) -> bool:
        """Keep it until ``release``; False when it has left already: then find the name again."""
        with self._free:
            if self._leaving and not self._held:
                return False
            self._held += 1
            return True

    def release(self) -> None:
        """Undo one ``hold``."""
        with self._free:
            self._held -= 1
            if self._leaving:
                self._free.notify_all()

    def leave(self, seconds: float) -> None:
        """Wait until nobody holds it, for at most this long; then answer what waits, and stop the worker."""
        until = time.monotonic() + seconds
        with self._free:
            self._leaving = True
            self._free.wait_for(lambda: not self._held, seconds)
        self.close(max(0.0, until - time.monotonic()))

    def close(self, seconds: float) -> None:
        """Answer what waits, for at most this long, and stop the worker."""
        self.batcher.close(seconds)
        if self._process is not None:
            self._process.stop()

    def use_cores(self, cores: Sequence[int]) -> None:
        """Keep its worker to these cores, where it has a process of its own."""
        if self._process is not None:
            self._process.use_cores(cores)

    def check_load(self) -> None:
        """Refuse one more request when it would not be answered in time; to be asked before its body is read.

        Raises:
            OverloadError: 503, with the seconds after which it is worth asking again.
        """
        try:
            self.batcher.check_load()
        except OverloadError:
            self._metrics.shed.labels(self.label).inc()
            raise

    def _count(self, rows: int, seconds: float, waited: float) -> None:
        """Count a batch; of a worker without a process the time of its own thread alone is known."""
        now = time.thread_time() if self._process is None else self._process.cpu_seconds
        used, self._cpu_seconds = now - self._cpu_seconds, now
        self._metrics.batch_done(self.label, rows, seconds, waited=waited, cpu_seconds=used)

    @property
    def measured(self) -> bool:
        """Whether nothing is left to measure of its batches."""
        return not isinstance(self.batcher, Batcher) or self.batcher.measured

    @property
    def ready(self) -> bool:
        """Whether a real answer was computed and the worker is still fit to compute more."""
        warm = self._warm is not None and self._warm.done() and self._warm.exception() is None
        return warm and self.batcher.healthy

    def submit(self, rows: list[Any]) -> Future[list[Any]]:
        """Queue rows with the deadline of this server.

        Raises:
            OverloadError: 503, as `check_load`.
        """
        try:
            return self.batcher.submit(rows, deadline=time.monotonic() + self.limits.deadline_seconds)
        except OverloadError:
            self._metrics.shed.labels(self.label).inc()
            raise

    def check_rows(self, count: int) -> None:
        """Refuse a request of too many rows, in TensorFlow Serving's words."""
        most = self.limits.request_rows
        if count > most:
            raise RequestError(f"Task size {count} is larger than maximum input batch size {most}")

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
        return self.form.row(raw, **self._sized, **options)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        if not options:
            return
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


def writer_of(bundle: Bundle, process: Process | None, label: str, limits: Limits, metrics: Metrics) -> Writer:
    """Make what has a language model write, by a process of its own where there is one."""
    from thrifty.export.bundle import torch_model
    from thrifty.export.forms.prompts import Prompts
    from thrifty.export.writing import writing_model
    from thrifty.serve.generation.engine import Engine
    from thrifty.serve.generation.writer import Writer
    from thrifty.serve.workers.remote import Remote

    assert isinstance(bundle.form, Prompts)
    info, length = bundle.info, bundle.info.data.shape[0]
    engine = (
        Engine(
            writing_model(torch_model(bundle), info.model, length), cache_bytes=limits.cache_bytes, texts=limits.texts
        )
        if process is None
        else Remote(process, max(limits.deadline_seconds, _UNMEASURED_SECONDS))
    )
    return Writer(bundle.form, engine, length=length, label=label, limits=limits, metrics=metrics)


def _patience(predicted: float) -> float:
    return max(_LEAST_PATIENCE_SECONDS, _PATIENCE * predicted) if predicted else _UNMEASURED_SECONDS
