"""A Python that has TensorFlow, which may be another one than this: started once, and asked over pipes.

TensorFlow may live in an environment of its own, which needs nothing but it: ``THRIFTY_TENSORFLOW_PYTHON`` names its
Python.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import thrifty
from thrifty.errors import BundleError, JobError, MissingExtraError

VARIABLE = "THRIFTY_TENSORFLOW_PYTHON"
ELSEWHERE = (
    "or make an environment for it and name its Python: python -m venv tf; "
    f"tf/bin/pip install tensorflow ai-edge-litert; export {VARIABLE}=$PWD/tf/bin/python"
)
# this package comes last, so that all else is found where the other Python has it
_BEGIN = (
    "import sys, tensorflow; sys.path.append(sys.argv[1]); from thrifty.export.tensorflow.worker import main; main()"
)


class TensorFlow:
    """A process of a Python with TensorFlow.

    Attributes:
        python: its path.
    """

    def __init__(self, python: str) -> None:
        self.python = python
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (as long as the process)
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [python, "-c", _BEGIN, str(Path(thrifty.__file__).parents[1])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **quiet, "PYTHONSAFEPATH": "1"},
        )

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Have one thing done, as `thrifty.export.tensorflow.worker` has them.

        Raises:
            BundleError: it cannot be; TensorFlow's reason.
        """
        assert self._process.stdin and self._process.stdout
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise BundleError(f"'{self.python}' ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BundleError(f"TensorFlow refuses it: {' '.join(answer['error'].split())[:300]}")
        return answer

    @property
    def lives(self) -> bool:
        """Whether it still answers."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        # a signal leaves no words of its own
        return lines[-1][:300] if lines and code >= 0 else f"exit code {code}"


_started: dict[str, TensorFlow] = {}


def tensorflow() -> TensorFlow:
    """Return the process that has TensorFlow, started at the first call and when the one before has ended.

    Raises:
        MissingExtraError: neither this Python has TensorFlow nor another is named.
        JobError: what is named is no program.
    """
    python = python_with_tensorflow()
    process = _started.get(python)
    if process is None or not process.lives:
        if process is not None:
            process.close()
        process = _started[python] = TensorFlow(python)
    return process


@atexit.register
def close_all() -> None:
    """End what `tensorflow` started."""
    while _started:
        _started.popitem()[1].close()


def python_with_tensorflow() -> str:
    """Return the Python that ``THRIFTY_TENSORFLOW_PYTHON`` names, or this one where it has TensorFlow.

    Raises:
        MissingExtraError: neither is there; how to get one.
        JobError: what is named is no program.
    """
    if named := os.environ.get(VARIABLE):
        if shutil.which(named) is None:
            raise JobError(
                f"{VARIABLE} names '{named}', which is no program", mend="Name a Python that has TensorFlow."
            )
        return named
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtraError(
            "exporting for TensorFlow", package="tensorflow", extra="savedmodel", otherwise=ELSEWHERE
        )
    return sys.executable
