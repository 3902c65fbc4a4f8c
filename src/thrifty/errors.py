"""The errors a user can meet: what happened, with which value, how to mend it, and the nearest valid name.

    ThriftyError            every error below; a ValueError with an exit code
    ├── JobError            the job file or an argument says something that cannot be meant
    ├── DataError           the data cannot be read or cannot be learned from
    ├── BudgetError         what is asked for does not fit what may be spent
    ├── StorageError        a folder or disk refuses to hold what must be written
    │   └── DiskFullError   there is no room left; what was written before is whole
    ├── DivergedError       training stopped being numbers before it learned anything
    ├── SignalledError      a signal asked training to end; it is saved and can be gone on with
    ├── RankLostError       one of the processes that train together is gone; what was saved is whole
    ├── WorkerLostError     a worker of a search is gone; what was saved is whole
    ├── BusyError           another process holds the run folder
    ├── BundleError         a bundle or checkpoint is damaged or not what it says
    ├── RequestError        a served request is malformed; carries an HTTP status
    └── MissingExtraError   an optional package is needed and not installed

Users get these; programming errors are plain ``assert``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the valid name most like ``name``, else the shortest that begins with it; empty when there is neither.

    >>> nearest("resnt18", ["resnet18", "gpt-mini"])
    'resnet18'
    >>> nearest("mlp", ["resnet18", "mlp-large-wide", "mlp-small"])
    'mlp-small'
    >>> nearest("zebra", ["resnet18", "gpt-mini"])
    ''
    """
    wanted, known = str(name).lower(), list(names)
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.6)
    longer = sorted((each for each in known if wanted and each.startswith(wanted)), key=lambda each: (len(each), each))
    return next(iter([*close, *longer]), "")


class ThriftyError(ValueError):
    """An error of thrifty's that a user can mend.

    Args:
        what: what is wrong, with the value at fault in it; one sentence without its full stop.
        mend: what to do about it; a sentence.
        nearest: the nearest valid name, when a name was misspelt.

    >>> print(ThriftyError("unknown model 'resnt18'", mend="See: thrifty models.", nearest="resnet18"))
    unknown model 'resnt18'. Did you mean 'resnet18'? See: thrifty models.
    """

    exit_code = 2

    def __init__(self, what: str, *, mend: str = "", nearest: str = "") -> None:
        self.what, self.mend, self.nearest = what, mend, nearest
        guess = f"Did you mean '{nearest}'?" if nearest else ""
        super().__init__(" ".join(part for part in (f"{what}.", guess, mend) if part))

    def __reduce__(self) -> tuple[Any, ...]:
        # ranks tell their errors to another process; each kind has arguments of its own
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[ThriftyError], args: tuple[Any, ...], said: dict[str, Any]) -> ThriftyError:
    """Make an error anew as it was."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(said)
    return error


class JobError(ThriftyError):
    """The job file or an argument says something that cannot be meant."""


class DataError(ThriftyError):
    """The data cannot be read or cannot be learned from."""


class BudgetError(ThriftyError):
    """What is asked for does not fit what may be spent."""

    exit_code = 3


class StorageError(ThriftyError):
    """A folder or disk refuses to hold what must be written."""

    exit_code = 4


class DiskFullError(StorageError):
    """There is no room left on the disk; what was written before is whole."""


class DivergedError(ThriftyError):
    """Training stopped being numbers before it learned anything."""

    exit_code = 5


class SignalledError(ThriftyError):
    """A signal asked training to end; ``exit_code`` is 128 plus its number, as a shell has it.

    >>> error = SignalledError("step 7 of 60 is saved", signal="SIGTERM", number=15)
    >>> print(error, error.exit_code)
    stopped by SIGTERM: step 7 of 60 is saved. Go on: give the same command again. 143
    """

    def __init__(self, saved: str, *, signal: str, number: int) -> None:
        super().__init__(f"stopped by {signal}: {saved}", mend="Go on: give the same command again.")
        self.signal, self.number, self.exit_code = signal, number, 128 + number


class RankLostError(ThriftyError):
    """One of the processes that train together is gone; what was saved before is whole."""

    exit_code = 6


class WorkerLostError(ThriftyError):
    """A worker of a search is gone; what was saved before is whole."""

    exit_code = 6


class BusyError(ThriftyError):
    """Another process holds the run folder."""

    exit_code = 4


class BundleError(ThriftyError):
    """A bundle or checkpoint is damaged or not what it says."""


class RequestError(ThriftyError):
    """A served request is malformed; ``status`` is the HTTP status of the reply."""

    def __init__(self, what: str, *, status: int = 400, mend: str = "", nearest: str = "") -> None:
        super().__init__(what, mend=mend, nearest=nearest)
        self.status = status


class MissingExtraError(ThriftyError):
    """An optional package is needed and not installed.

    >>> print(MissingExtraError("exporting to ONNX", package="onnx", extra="onnx"))
    exporting to ONNX needs the package 'onnx'. Install it: pip install 'thrifty[onnx]'

    Args:
        purpose: what needs it.
        package, extra: that are not installed.
        otherwise: another way to have it.
    """

    def __init__(self, purpose: str, *, package: str, extra: str, otherwise: str = "") -> None:
        mend = f"Install it: pip install 'thrifty[{extra}]'" + (f"; {otherwise}" if otherwise else "")
        super().__init__(f"{purpose} needs the package '{package}'", mend=mend)


def unknown_name(kind: str, name: str, names: Iterable[str], *, see: str = "") -> JobError:
    """Build the error for a name that is not in a table, with the nearest one that is.

    >>> print(unknown_name("schedule", "cosin", ["cosine", "fixed"]))
    unknown schedule 'cosin'. Did you mean 'cosine'? Known: cosine, fixed.
    """
    names = sorted(names)
    return JobError(f"unknown {kind} '{name}'", nearest=nearest(name, names), mend=see or f"Known: {', '.join(names)}.")
