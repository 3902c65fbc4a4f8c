"""The models a server answers with: each bundle with its worker, found by name and version."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from thrifty.errors import BundleError, JobError, RequestError
from thrifty.export.check import read_info
from thrifty.serve.cores import here, shares
from thrifty.serve.labels import Labels, check_labels
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.model import Ask, Model

if TYPE_CHECKING:
    from thrifty.export.bundle import Bundle
    from thrifty.serve.workers.nursery import Nursery

__all__ = ["Ask", "Model", "Models", "Standing", "State"]

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


class Models:
    """All models of a server; the latest version of a name answers unless one is asked for.

    Versions come and go while it serves: ``load`` and ``unload`` may be called from any thread but the event loop's,
    since both wait; lookups may be made from any.

    Args:
        bundles: to begin with: folders, or what was loaded of them, which is computed in this process.
        limits: of each model.
        metrics: told of each batch.
        nursery: of the processes that compute bundles which come as folders; without one this process does.
        empty: whether there may be none to begin with.

    Raises:
        JobError: two bundles have the same name and version, or there is none.
    """

    def __init__(
        self,
        bundles: Sequence[Bundle | str | Path],
        limits: Limits,
        metrics: Metrics,
        *,
        nursery: Nursery | None = None,
        empty: bool = False,
    ) -> None:
        self._limits, self._metrics, self._nursery = limits, metrics, nursery
        self._cores = here()
        # replaced, never changed, so that lookups need no lock
        self._labels: Labels = {}
        self._by_name: dict[str, dict[int, Model]] = {}
        self._standings: dict[tuple[str, int], Standing] = {}
        self._changing = threading.RLock()
        for each in bundles:
            bundle = self._read(Path(each)) if isinstance(each, str | Path) else each
            if self.find(bundle.info.name, bundle.info.version):
                raise JobError(
                    f"two bundles are named '{bundle.info.name}' version {bundle.info.version}",
                    mend="Serve one of them, or write one under another name or version.",
                )
            self._put(self._make(bundle))
        self._share_cores()
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
            found = self._by_name.get(name)
            return found[max(found)] if found else None
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
        folder = Path(folder).absolute()
        info = read_info(folder)
        key = (name or info.name, version or info.version)
        self._stand(key, "LOADING")
        try:
            bundle = self._read(folder)
            bundle.info = bundle.info.model_copy(update={"name": key[0], "version": key[1]})
            model = self._make(bundle)
            try:
                model.wait_until_warm(self._limits.warm_seconds)
            except BundleError:
                model.close(0.0)
                raise
        except BaseException as error:
            self._stand(key, "UNAVAILABLE", str(error))
            raise
        before = self._put(model)
        self._share_cores()
        if before is not None:
            before.leave(self._limits.drain_seconds)
        return model

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
        self._share_cores()
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
            model.close(max(0.0, until - time.monotonic()))

    def _read(self, folder: Path) -> Bundle:
        """Read a bundle: whole where it is computed here, else what makes rows for its process."""
        from thrifty.export.bundle import load_bundle, read_bundle

        return load_bundle(folder) if self._nursery is None else read_bundle(folder)

    def _make(self, bundle: Bundle) -> Model:
        with self._changing:
            cores = shares([*self._by_name, bundle.info.name], self._cores)[bundle.info.name]
        return Model(bundle, self._limits, self._metrics, self._nursery if bundle.model is None else None, cores)

    def _share_cores(self) -> None:
        with self._changing:
            by_name = shares(self._by_name, self._cores)
            for model in self:
                model.use_cores(by_name[model.name])

    def _standing(self, key: tuple[str, int]) -> Standing:
        said, model = self._standings[key], self.find(*key)
        if model is None or said.state != "READY":
            return said
        if model.ready:
            return said
        return Standing(*key, "LOADING") if model.batcher.healthy else Standing(*key, "UNAVAILABLE", "does not answer")

    def _stand(self, key: tuple[str, int], state: State, reason: str = "") -> None:
        """Note how a version stands while it is loaded; one that answers meanwhile stands as it does."""
        with self._changing:
            if self.find(*key) is None:
                self._standings[key] = Standing(*key, state, reason)

    def _put(self, model: Model) -> Model | None:
        """Take a model in; returns the one whose place it took."""
        with self._changing:
            before = self.find(model.name, model.version)
            versions = self._by_name.get(model.name, {}) | {model.version: model}
            self._by_name = self._by_name | {model.name: versions}
            self._standings[model.name, model.version] = Standing(model.name, model.version, "READY")
            self._metrics.watch_queue(model.label, lambda: model.batcher.waiting_rows)
            return before
