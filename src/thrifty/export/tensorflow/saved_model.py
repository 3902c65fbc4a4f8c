"""Steps of a traced program as a TensorFlow SavedModel: weights as variables, one signature, sizes open."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

from thrifty.export.arrays import read_tensors
from thrifty.export.tensorflow.operators import LITE_OPERATORS, OPERATORS

SIGNATURE = "serving_default"


def write_saved_model(steps: Path, weights: Path, folder: Path, *, lite: bool = False) -> None:
    """Write what `thrifty.export.steps` wrote as a SavedModel, with the signature ``serving_default``.

    Args:
        steps, weights: files.
        folder: where to.
        lite: it is to become a LiteRT file.

    Raises:
        NotImplementedError: steps have operators that have no form here; which.
    """
    program = json.loads(steps.read_text(encoding="utf-8"))
    operators = LITE_OPERATORS if lite else OPERATORS
    missing = {step["operator"] for step in program["steps"]} - set(operators)
    if missing:
        raise NotImplementedError(f"no form of {', '.join(sorted(missing))} in TensorFlow")
    module = _Module(program, read_tensors(weights), operators)
    specs = {each["name"]: tf.TensorSpec(each["sizes"], each["type"], each["name"]) for each in program["inputs"]}
    served = tf.function(module.answer, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: served})


class _Module(tf.Module):
    """Goes through steps while TensorFlow traces."""

    def __init__(
        self,
        program: Mapping[str, Any],
        tensors: Mapping[str, NDArray[Any]],
        operators: Mapping[str, Callable[..., Any]],
    ) -> None:
        super().__init__()
        self._operator = lambda name: operators[name]
        self._program = json.dumps(program)  # a mapping would be tracked as if it held variables
        self._names = tuple(tensors)
        self._kept = [tf.Variable(each, trainable=False, name=f"weight_{n}") for n, each in enumerate(tensors.values())]

    def answer(self, **given: Any) -> dict[str, Any]:
        """Compute outputs by name of inputs by name."""
        program, kept = json.loads(self._program), dict(zip(self._names, self._kept, strict=True))
        # one reading of each variable
        read = {name: tf.convert_to_tensor(variable) for name, variable in kept.items()}
        values = {value: read[name] for value, name in program["weights"].items()}
        values |= {each["value"]: given[each["name"]] for each in program["inputs"]}
        for step in program["steps"]:
            arguments = [_filled(each, values) for each in step["arguments"]]
            options = {name: _filled(each, values) for name, each in step["options"].items()}
            try:
                found = self._operator(step["operator"])(*arguments, **options)
            except (TypeError, ValueError, NotImplementedError, tf.errors.OpError) as error:
                raise NotImplementedError(f"{step['operator']} of {step['value']}: {error}") from error
            values[step["value"]] = _as_said(found, step)
        return {name: tf.identity(_filled(each, values), name) for name, each in program["outputs"].items()}


def _filled(argument: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(argument, list):
        return [_filled(each, values) for each in argument]
    if isinstance(argument, dict):
        return values[argument["value"]] if "value" in argument else tf.as_dtype(argument["type"])
    return argument


def _as_said(found: Any, step: Mapping[str, Any]) -> Any:
    """Of the type that torch gives, and with the sizes that are known."""
    if "type" not in step:
        return found
    found = tf.cast(found, tf.as_dtype(step["type"]))
    found.set_shape(step["sizes"])
    return found
