"""A LiteRT file by LiteRT's interpreter, arrays by name to arrays by name: NumPy and ``ai-edge-litert`` alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

SIGNATURE = "serving_default"


def signature_of(sizes: Sequence[int]) -> str:
    """Return the name of the signature for one shape of input.

    >>> signature_of((3, 16))
    'serving_3x16'
    """
    return f"serving_{'x'.join(map(str, sizes))}"


def read_lite(path: Path) -> Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]:
    """Read a file, and return what answers: by ``serving_default``, or by the signature for the first input's shape.

    Raises:
        ImportError: ``ai-edge-litert`` is not installed.
        ValueError: it is no such file, or has no signature for a shape.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    names = interpreter.get_signature_list()

    def answer(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        name = SIGNATURE if SIGNATURE in names else signature_of(next(iter(inputs.values())).shape)
        if name not in names:
            raise ValueError(f"no signature '{name}'; there are {', '.join(names)}")
        runner = interpreter.get_signature_runner(name)
        kinds = {each: said["dtype"] for each, said in runner.get_input_details().items()}
        found = runner(**{each: array.astype(kinds[each]) for each, array in inputs.items()})
        return {each: array.copy() for each, array in found.items()}

    return answer
