"""`Watch`: a folder of versions, ``FOLDER/NAME/VERSION/``, whose latest ones are served as they come and go."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from thrifty.errors import JobError, RequestError, ThriftyError
from thrifty.serve.folders import versions_in
from thrifty.serve.models import Models

logger = logging.getLogger("thrifty.serve")

SECONDS = 1.0  # between two looks, as TensorFlow Serving's

_Files = tuple[tuple[str, int, int], ...]


class Watch:
    """Looks at a folder again and again: loads what is newest of each name, then lets go of what it replaced.

    A version is a folder named by a number, with a bundle in it or in its ``bundle``. The newest that loads is served:
    one that is damaged, or not wholly copied yet, is tried again when its files change, and the one before it stays.

    Args:
        folder: to watch.
        models: that answer.
        seconds: between two looks.

    Raises:
        JobError: there is no such folder.
    """

    def __init__(self, folder: str | Path, models: Models, *, seconds: float = SECONDS) -> None:
        self._folder, self._models, self._seconds = Path(folder).resolve(), models, seconds
        if not self._folder.is_dir():
            raise JobError(f"'{folder}' to watch is no folder", mend="Name a folder with NAME/VERSION/ in it.")
        self._serving: dict[str, set[int]] = {}
        self._failed: dict[Path, _Files] = {}
        self._stopped = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._work, name="thrifty-watch", daemon=True)

    @property
    def looked(self) -> bool:
        """Whether it has looked once, and what was there is served."""
        return self._looked.is_set()

    def start(self) -> None:
        """Begin to look; a second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def stop(self) -> None:
        """Look no more; what is served stays."""
        self._stopped.set()

    def look(self) -> None:
        """Look once, and wait until what changed is served."""
        for name in sorted(self._serving.keys() | {each.name for each in self._folder.iterdir() if each.is_dir()}):
            try:
                self._follow(name)
            except (OSError, ThriftyError) as error:
                logger.warning("watching model '%s': %s", name, error)
        self._looked.set()

    def _work(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Exception:
                logger.exception("watching '%s' failed", self._folder)
            self._stopped.wait(self._seconds)

    def _follow(self, name: str) -> None:
        found = versions_in(self._folder / name)
        serving = self._serving.setdefault(name, set())
        for version in sorted(found, reverse=True):
            if version in serving or self._load(name, version, found[version]):
                serving.add(version)
                break
        newest = max(serving & found.keys(), default=None)
        for version in sorted(serving - {newest}):
            serving.discard(version)
            try:
                self._models.unload(name, version)
                logger.info("model '%s' version %d is gone", name, version)
            except RequestError:  # someone else has unloaded it
                continue
        if not serving and not found:
            del self._serving[name]

    def _load(self, name: str, version: int, folder: Path) -> bool:
        files = tuple(sorted((each.name, each.stat().st_size, each.stat().st_mtime_ns) for each in folder.iterdir()))
        if self._failed.get(folder) == files:
            return False
        try:
            self._models.load(folder, name=name, version=version)
        except ThriftyError as error:
            self._failed[folder] = files
            logger.warning("model '%s' version %d is not served: %s", name, version, error)
            return False
        self._failed.pop(folder, None)
        logger.info("model '%s' version %d is served", name, version)
        return True
