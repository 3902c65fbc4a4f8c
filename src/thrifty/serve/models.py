"""The models a server answers with: each bundle with its worker, found by name and version."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thrifty.errors import BundleError, JobError, RequestError, ThriftyError, nearest
from thrifty.serve.batcher import Batcher
from thrifty.serve.http import Reply
from thrifty.serve.labels import Labels, check_labels
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics

if TYPE_CHECKING:
    from thrifty.export.bundle import Bundle
    from thrifty.serve.generation.writer import Writer

# whole numbers that a request may ask for beside its input
_LEAST = {"max_tokens": 1, "top_k": 1, "seed": 0, "beam": 1}


@dataclass(frozen=True)
class Ask:
    """A parsed request: the rows to compute, and what makes the reply of their answers."""

    rows: list[Any]
    reply: Callable[[list[Any]], Reply]


State = Literal["LOADING", "READY", "UNLOADING", "UNAVAILABLE"]


@dataclass(frozen=True)
class Standing:
    """How a version stands on this server, in the words of Triton's repository index.

    Attributes:
        name, version: of the model.
        state: ``UNAVAILABLE`` of one that failed to load or was unloaded.
        reason: why it is not ready; empty when it is.
    """

    name: str
    version: int
    state: State
    reason: str = ""


class Model:
    """One bundle and the worker that owns it.

    Whoever is about to ask it holds it: ``hold()`` before the request is read, ``release()`` once it is answered. So
    a version that is unloaded leaves when its last request has.
    """

    def __init__(self, bundle: Bundle, limits: Limits, metrics: Metrics) -> None:
        self.bundle, self.limits = bundle, limits
        self.name, self.version = bundle.info.name, bundle.info.version
        self.label = f"{self.name}:{self.version}"
        self.form = bundle.form
        self._warm: Future[list[Any]] | None = None
        self._held = 0
        self._leaving = False
        self._free = threading.Condition()
        self.writer = writer_of(bundle, self.label, limits, metrics)
        self.batcher = self.writer or Batcher(
            self.form.answers,
            name=self.label,
            batch_rows=1 if self.form.alone else limits.batch_rows,
            queue_rows=limits.queue_rows,
            hung_after_seconds=limits.deadline_seconds,
            on_batch=lambda rows, seconds: metrics.batch_done(self.label, rows, seconds),
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
            self._free.notify_all()

    def leave(self, seconds: float) -> None:
        """Wait until nobody holds it, for at most this long; then answer what waits, and stop the worker."""
        until = time.monotonic() + seconds
        with self._free:
            self._leaving = True
            self._free.wait_for(lambda: not self._held, seconds)
        self.batcher.close(max(0.0, until - time.monotonic()))

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
    def columns(self) -> tuple[str, ...]:
        """Inputs that a request may give several of, one for each column of a table; empty where there is no table."""
        return tuple(self.form.inputs)[1:] if self.form.takes == "row" else ()

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

    Versions come and go while it serves: ``load`` and ``unload`` may be called from any thread but the event loop's,
    since both wait; lookups may be made from any.

    Args:
        bundles: to begin with.
        limits: of each model.
        metrics: told of each batch.
        empty: whether there may be none to begin with.

    Raises:
        JobError: two bundles have the same name and version, or there is none.
    """

    def __init__(self, bundles: Sequence[Bundle], limits: Limits, metrics: Metrics, *, empty: bool = False) -> None:
        self._limits, self._metrics = limits, metrics
        # replaced, never changed, so that lookups need no lock
        self._labels: Labels = {}
        self._by_name: dict[str, dict[int, Model]] = {}
        self._standings: dict[tuple[str, int], Standing] = {}
        self._folders: dict[tuple[str, int], Path] = {}
        self._changing = threading.RLock()
        for bundle in bundles:
            if self.find(bundle.info.name, bundle.info.version):
                raise JobError(
                    f"two bundles are named '{bundle.info.name}' version {bundle.info.version}",
                    mend="Serve one of them, or write one under another name or version.",
                )
            self._put(Model(bundle, limits, metrics))
        if not bundles and not empty:
            raise JobError("there is no bundle to serve", mend="Name at least one bundle folder.")

    def __iter__(self) -> Iterator[Model]:
        return (model for versions in self._by_name.values() for model in versions.values())

    def versions(self, name: str) -> list[Model]:
        """All versions of a name, the latest first; empty for an unknown name."""
        found = self._by_name.get(name, {})
        return [found[version] for version in sorted(found, reverse=True)]

    def find(self, name: str, version: int | None) -> Model | None:
        """One version of a name, or its latest."""
        if version is None:
            return next(iter(self.versions(name)), None)
        return self._by_name.get(name, {}).get(version)

    def name_versions(self, labels: Labels) -> None:
        """Have labels stand for versions that are served.

        Raises:
            JobError: one stands for a version that is not.
        """
        check_labels(labels, {name: list(versions) for name, versions in self._by_name.items()})
        self._labels = labels

    def labelled(self, name: str, label: str) -> int | None:
        """The version of a name that a label stands for; a label given for this name before one for all."""
        found = self._labels.get((name, label))
        return self._labels.get((None, label)) if found is None else found

    def load(self, folder: str | Path, *, name: str | None = None, version: int | None = None) -> Model:
        """Read a bundle, warm it up, and only then let it answer; one of the same name and version leaves for it.

        Args:
            folder: of the bundle.
            name, version: to serve it under; its own when left out.

        Raises:
            BundleError: it is damaged, or does not answer; what was served before still is.
        """
        from thrifty.export.bundle import load_bundle
        from thrifty.export.check import read_info

        folder = Path(folder).absolute()
        info = read_info(folder)
        key = (name or info.name, version or info.version)
        self._standings[key] = Standing(*key, "LOADING")
        try:
            bundle = load_bundle(folder)
            bundle.info = bundle.info.model_copy(update={"name": key[0], "version": key[1]})
            model = Model(bundle, self._limits, self._metrics)
            try:
                model.wait_until_warm(self._limits.warm_seconds)
            except BundleError:
                model.leave(0.0)
                raise
        except BaseException as error:
            self._standings[key] = Standing(*key, "UNAVAILABLE", str(error))
            raise
        before = self._put(model)
        if before is not None:
            before.leave(self._limits.drain_seconds)
        return model

    def load_known(self, name: str) -> list[Model]:
        """Load every version of a name that this server has served before, again from its folder.

        Raises:
            RequestError: 404, it knows no folder of that name.
            BundleError: one is damaged by now.
        """
        found = {key: folder for key, folder in self._folders.items() if key[0] == name}
        if not found:
            known = nearest(name, {each for each, _ in self._folders})
            raise RequestError(
                f"failed to load '{name}', failed to poll from model repository", status=404, nearest=known
            )
        return [self.load(folder, name=name, version=version) for (_, version), folder in sorted(found.items())]

    def unload(self, name: str, version: int | None = None) -> None:
        """Let a version, or all of a name, answer no new request; returns when the last one is answered and it is gone.

        Raises:
            RequestError: 404, it is not loaded.
        """
        with self._changing:
            gone = [model for model in self.versions(name) if version in (None, model.version)]
            if not gone:
                which = f"'{name}'" if version is None else f"'{name}' version {version}"
                raise RequestError(f"failed to unload {which}: it is not loaded", status=404)
            kept = {number: model for number, model in self._by_name[name].items() if model not in gone}
            others = {each: versions for each, versions in self._by_name.items() if each != name}
            self._by_name = others | ({name: kept} if kept else {})
            for model in gone:
                self._standings[name, model.version] = Standing(name, model.version, "UNLOADING")
        for model in gone:
            model.leave(self._limits.drain_seconds)
            with self._changing:
                if self.find(name, model.version) is None:  # not loaded again meanwhile
                    self._metrics.forget(model.label)
                    self._standings[name, model.version] = Standing(name, model.version, "UNAVAILABLE", "unloaded")

    def standings(self) -> list[Standing]:
        """Every version that was ever loaded here and how it stands, by name and version."""
        return [self._standing(key) for key in sorted(self._standings)]

    def close(self) -> None:
        """Answer what waits, for at most the time to drain, and stop all workers."""
        until = time.monotonic() + self._limits.drain_seconds
        for model in self:
            model.batcher.close(max(0.0, until - time.monotonic()))

    def _standing(self, key: tuple[str, int]) -> Standing:
        said, model = self._standings[key], self.find(*key)
        if model is None or said.state != "READY":
            return said
        if model.ready:
            return said
        return Standing(*key, "LOADING") if model.batcher.healthy else Standing(*key, "UNAVAILABLE", "does not answer")

    def _put(self, model: Model) -> Model | None:
        """Take a model in; returns the one whose place it took."""
        with self._changing:
            before = self.find(model.name, model.version)
            versions = self._by_name.get(model.name, {}) | {model.version: model}
            self._by_name = self._by_name | {model.name: versions}
            self._standings[model.name, model.version] = Standing(model.name, model.version, "READY")
            self._folders[model.name, model.version] = model.bundle.folder
            self._metrics.watch_queue(model.label, lambda: model.batcher.waiting_rows)
            return before


def writer_of(bundle: Bundle, label: str, limits: Limits, metrics: Metrics) -> Writer | None:
    """Make what writes many texts at once, where a bundle's model is one that can."""
    if bundle.info.task != "language" or bundle.info.engine != "torch":
        return None
    from thrifty.export.forms.prompts import Prompts
    from thrifty.serve.generation.engine import can_write
    from thrifty.serve.generation.writer import Writer

    if not (isinstance(bundle.form, Prompts) and can_write(bundle.model)):
        return None
    return Writer(bundle.form, label=label, limits=limits, metrics=metrics)
