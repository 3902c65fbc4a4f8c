"""What one copy of a process found out, told to the others through a file, and kept for copies that come later."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import tempfile
from typing import Any

# a copy that inherits a lock may never tell; and what takes longer, others find out meanwhile
PATIENCE_SECONDS = 5.0


class Hearsay:
    """A mapping that one of several copies fills and the others wait for.

    Made before the copies; what is told holds for copies that are made later, too.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - copies read it as long as this lives
        self._waiting, self._told = os.pipe()

    def tell(self, found: dict[Any, Any], listeners: int) -> None:
        """Tell so many others; nothing, where some of it cannot be told."""
        with contextlib.suppress(pickle.PicklingError, TypeError, AttributeError, OSError):
            said = pickle.dumps(found)
            os.pwrite(self._file.fileno(), said, 0)
        os.write(self._told, bytes(listeners))

    def wait(self) -> dict[Any, Any]:
        """Wait until it is told; what was told before, where that does not happen for a while."""
        if select.select([self._waiting], [], [], PATIENCE_SECONDS)[0]:
            os.read(self._waiting, 1)
        return self.told_before()

    def told_before(self) -> dict[Any, Any]:
        """What was told by now."""
        file = self._file.fileno()
        said = os.pread(file, os.fstat(file).st_size, 0)
        with contextlib.suppress(pickle.UnpicklingError, EOFError):  # it is being written
            found: dict[Any, Any] = pickle.loads(said)
            return found
        return {}

    def close(self) -> None:
        """Forget it."""
        self._file.close()
        os.close(self._waiting)
        os.close(self._told)
