"""Moves to another engine at a precision of its own: OpenVINO, ONNX Runtime, native code by torch's compiler."""

from __future__ import annotations

import importlib.util
from functools import partial
from typing import Any

from thrifty.compress.moves.forms import formed
from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.export.engines import ENGINES
from thrifty.export.engines.isa import EIGHT_BITS
from thrifty.export.writing import FAMILIES

# seconds: the packages are loaded once; a layer is traced and converted; weights are copied and written
LOADING_S, LAYER_S, BYTE_S = 4.0, 0.06, 1 / 100e6
# that fused kernels and a graph without Python save beside arithmetic, at the very most
FUSION = 3.0
_PACKAGES = {"torch": "torch", "openvino": "openvino", "onnx": "onnxruntime", "aoti": "torch"}
BF16 = ("amx_bf16", "avx512_bf16", "bf16")


def converted(context: Context, candidate: Candidate, engine: str) -> Any:
    """Return an engine's own object of a model; made once in a search. Not to be changed in place."""
    key = (id(candidate.model), engine)
    if key not in context.kept:
        context.kept[key] = ENGINES[engine].convert(candidate.model, context.data)
    return context.kept[key]


def conversion_s(context: Context, candidate: Candidate, engine: str = "openvino") -> float:
    """Predict the seconds that `converted` and writing what it made take."""
    own = sum(each.nbytes for each in candidate.model.parameters()) * BYTE_S
    if (id(candidate.model), engine) in context.kept:
        return 1.0 + own
    layers = sum(not any(each.children()) for each in candidate.model.modules())
    return LOADING_S + LAYER_S * layers + own


def gain(context: Context, arithmetic: str, *, bytes_saved: float) -> float:
    """Return by how much an objective can be divided by computing in another arithmetic, at the very most."""
    if context.objective == "size":
        return bytes_saved
    rates = context.device.flops_per_second
    faster = rates[arithmetic].value / rates["fp32"].value if {arithmetic, "fp32"} <= rates.keys() else 1.0
    return FUSION * max(1.0, faster)


def missing(package: str) -> str | None:
    """Say that a package is not installed."""
    return None if importlib.util.find_spec(package) else f"the package '{package}' is not installed"


def slows_writing(context: Context) -> str | None:
    """Say why a language model stays with torch, unless size is all that counts."""
    if context.run.task == "language" and context.objective != "size":
        return "torch alone keeps keys and values: another engine reads a text anew for each token that it writes"
    return None


def _applies(engine: str, precision: str, context: Context, candidate: Candidate) -> str | None:
    if precision == "bf16" and not set(BF16) & set(context.device.isa):
        return "this processor has no arithmetic in bf16"
    if engine == "torch" and context.run.task != "language":
        return "for language models, which torch writes text with; others are faster by an engine"
    if engine == "torch" and precision == "int8":
        return _lacks_int8(context, candidate)
    return missing(_PACKAGES[engine]) or (None if engine == "torch" else slows_writing(context))


def _lacks_int8(context: Context, candidate: Candidate) -> str | None:
    if candidate.plan.family not in FAMILIES:
        return "torch has a form in int8 of GPT and Llama alone"
    return None if set(EIGHT_BITS) & set(context.device.isa) else "this processor has no products of int8"


def _apply(name: str, engine: str, precision: str, says: str, context: Context, candidate: Candidate) -> Candidate:
    made = converted(context, candidate, engine)
    return formed(context, candidate, name, says, made, engine=engine, precision=precision)


def _move(
    name: str, engine: str, precision: str, says: str, *, bytes_saved: float = 1.0, compiling_s: float = 0.0
) -> Move:
    return Move(
        name=name,
        says=says,
        applies=partial(_applies, engine, precision),
        price=lambda context, candidate: conversion_s(context, candidate, engine) + compiling_s,
        hope=lambda context, candidate: gain(context, precision, bytes_saved=bytes_saved),
        apply=partial(_apply, name, engine, precision, says),
        last=True,
    )


CONVERSIONS = (
    _move("bf16", "openvino", "bf16", "computed by OpenVINO in bf16, weights kept in 16 bits", bytes_saved=2.0),
    _move("torch_bf16", "torch", "bf16", "computed by torch in bf16, weights kept in 16 bits", bytes_saved=2.0),
    _move("int8_writing", "torch", "int8", "computed by torch, weights and rows in int8", bytes_saved=4.0),
    _move("openvino", "openvino", "fp32", "computed by OpenVINO in fp32"),
    _move("onnx", "onnx", "fp32", "computed by ONNX Runtime in fp32"),
    _move("native", "aoti", "fp32", "compiled to native code by torch", compiling_s=40.0),
)
