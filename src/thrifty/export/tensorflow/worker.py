"""A process with TensorFlow that is asked by lines of JSON on stdin, and answers each by one on stdout.

``{"do": "write", "steps", "weights", "folder", "lite"}`` writes a SavedModel. ``{"do": "answer", "folder", "inputs"}``
computes one by its ``serving_default``, loaded at the first. ``{"do": "lite", "folder", "path"}`` makes a LiteRT file
of one, and ``{"do": "answer_lite", "path", "inputs"}`` computes that.
Arrays are as `thrifty.export.arrays` has them. What goes wrong is ``{"error": text}``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from thrifty.export.arrays import pack, unpack
from thrifty.export.interpreted import read_lite
from thrifty.export.tensorflow.saved_model import SIGNATURE, write_saved_model

# the one that was asked last
_loaded: dict[str, Any] = {}


def _write(steps: str, weights: str, folder: str, lite: bool) -> dict[str, Any]:
    _loaded.clear()
    write_saved_model(Path(steps), Path(weights), Path(folder), lite=lite)
    return {"tensorflow": tf.__version__}


def _answer(folder: str, inputs: dict[str, Any]) -> dict[str, Any]:
    if folder not in _loaded:
        _loaded.clear()
        _loaded[folder] = tf.saved_model.load(folder)
    found = _loaded[folder].signatures[SIGNATURE](**{name: tf.constant(unpack(each)) for name, each in inputs.items()})
    return {"outputs": {name: pack(each.numpy()) for name, each in found.items()}}


def _answer_lite(path: str, inputs: dict[str, Any]) -> dict[str, Any]:
    if path not in _loaded:
        _loaded.clear()
        _loaded[path] = read_lite(Path(path))
    found = _loaded[path]({name: unpack(each) for name, each in inputs.items()})
    return {"outputs": {name: pack(each) for name, each in found.items()}}


def _lite(folder: str, path: str) -> dict[str, Any]:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
    Path(path).write_bytes(converter.convert())
    return {"tensorflow": tf.__version__}


_DOES: dict[str, Callable[..., dict[str, Any]]] = {
    "write": _write,
    "answer": _answer,
    "lite": _lite,
    "answer_lite": _answer_lite,
}


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # libraries print to stdout as they like
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = _DOES[asked.pop("do")](**asked)
        except Exception as error:  # TensorFlow's kinds are many; the one who asks is told
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
