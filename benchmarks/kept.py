"""Parts of a long benchmark, kept as they are measured: one that was cut off goes on from there."""

from __future__ import annotations

import datetime
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

import thrifty
from thrifty.files import write_atomic
from thrifty.spec.folders import cache_folder

T = TypeVar("T")

# what a part depends on
CODE = (Path(__file__).parent, Path(thrifty.__file__).parent)


class Kept:
    """Answers what was kept under a name before, else makes it and keeps it.

    Args:
        folder: of the parts; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @classmethod
    def of(cls, benchmark: str, *, resume: bool) -> Kept:
        """Parts of a benchmark of this day and this code; those of an earlier start are dropped unless resumed."""
        folder = cache_folder() / "benchmarks" / f"{benchmark}-{_today()}-{_code_key()}"
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def __call__(self, name: str, kind: Any, make: Callable[[], T]) -> T:
        """Return the part of this name; ``kind`` is its type, by which it is written and read."""
        if self._folder is None:
            return make()
        path, adapter = self._folder / f"{name}.json", TypeAdapter[Any](kind)
        if path.is_file():
            found: T = adapter.validate_json(path.read_bytes())
            return found
        made = make()
        write_atomic(path, adapter.dump_json(made), purpose="a part of the benchmark")
        return made


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _code_key() -> str:
    digest = hashlib.sha256()
    for root in CODE:
        for path in sorted(root.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
