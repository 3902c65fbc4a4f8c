"""LiteRT: one ``.tflite`` file, preprocessing inside, read back by LiteRT's interpreter."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from thrifty.errors import BundleError, MissingExtraError
from thrifty.export.arrays import pack, unpack
from thrifty.export.examples import BATCHES, lengths_of, served_example
from thrifty.export.interpreted import read_lite, signature_of
from thrifty.export.other_python import ELSEWHERE, python_with_tensorflow, tensorflow
from thrifty.export.parity import Outputs
from thrifty.export.program import quiet
from thrifty.export.targets.decoder import INPUTS, OUTPUTS, Step
from thrifty.export.targets.savedmodel import write_saved_model
from thrifty.export.targets.served import Source
from thrifty.export.targets.target import Route, Target

FILE = "model.tflite"


def _write_open(source: Source, path: Path) -> dict[str, Any]:
    """One signature for all sizes, of a SavedModel."""
    return _convert(source.program, path, inputs=(source.input,), outputs=source.outputs)


def _convert(program: ExportedProgram, path: Path, *, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    """Write a traced program as a SavedModel, and that as a LiteRT file, its sizes open."""
    try:
        process = tensorflow()
    except MissingExtraError as error:
        raise BundleError(error.what) from error
    with tempfile.TemporaryDirectory(prefix="thrifty-saved-model-") as scratch:
        write_saved_model(program, Path(scratch), inputs=inputs, outputs=outputs, lite=True)
        made = process.ask("lite", folder=scratch, path=str(path))
    return {"sizes": "open", "signature": "serving_default", "tensorflow": made["tensorflow"]}


def _write_decoder(program: ExportedProgram, path: Path) -> Step:
    _convert(program, path, inputs=INPUTS, outputs=OUTPUTS)
    answer = _answering(path)

    def step(*read: NDArray[Any]) -> list[NDArray[Any]]:
        found = answer(dict(zip(INPUTS, read, strict=True)))
        return [found[name] for name in OUTPUTS]

    return step


def _write_fixed(source: Source, path: Path) -> dict[str, Any]:
    """A signature for each of the shapes that are compared; they share weights.

    litert-torch takes no model of ours with open sizes (0.10): it takes their place for a number below zero.
    """
    if importlib.util.find_spec("litert_torch") is None:
        raise BundleError("exporting to LiteRT needs the package 'litert-torch'")
    with quiet():
        import litert_torch
    data = source.bundle.info.data
    examples = [served_example(data, rows, length) for rows in BATCHES for length in lengths_of(data)]
    converter = litert_torch.Converter()
    try:
        with quiet(), torch.inference_mode(False), torch.no_grad():
            for x in examples:
                converter.signature(signature_of(x.shape), source.module, sample_kwargs={source.input: x})
            converter.convert().export(str(path))
    except Exception as error:  # the converter raises many kinds of its own
        raise BundleError(f"litert-torch does not convert it: {' '.join(str(error).split())[:300]}") from error
    return {"sizes": "fixed", "signatures": {signature_of(x.shape): list(x.shape) for x in examples}}


def read(path: Path, source: Source) -> Callable[[Tensor], Outputs]:
    """Read the file by LiteRT's interpreter: this Python's, or that of the one with TensorFlow."""
    answer = _answering(path)
    return lambda x: answer({source.input: x.numpy()})


def _answering(path: Path) -> Callable[[Mapping[str, NDArray[Any]]], Outputs]:
    if importlib.util.find_spec("ai_edge_litert") is not None:
        with quiet():
            return read_lite(path)

    def answer(inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        packed = {name: pack(each) for name, each in inputs.items()}
        found = tensorflow().ask("answer_lite", path=str(path), inputs=packed)["outputs"]
        return {name: unpack(each) for name, each in found.items()}

    return answer


def _require() -> None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        try:
            python_with_tensorflow()
        except MissingExtraError:
            raise MissingExtraError(
                "exporting to LiteRT", package="ai-edge-litert", extra="litert", otherwise=ELSEWHERE
            ) from None


TARGET = Target(
    says="a LiteRT file",
    file=FILE,
    routes=(
        Route("TensorFlow's converter on a SavedModel, sizes open", _write_open),
        Route("litert-torch, a signature for each of some shapes", _write_fixed),
    ),
    read=read,
    require=_require,
    decoder=_write_decoder,
    decoder_file="decoder.tflite",
)
