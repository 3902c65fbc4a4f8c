"""Moves to whole numbers: int8 by ranges seen on calibration rows, by ranges of each request, or of weights alone.

Static int8 and weights alone are NNCF's, on OpenVINO; dynamic int8 is ONNX Runtime's. Where static int8 is worse than
allowed, the layers that err most are kept as they were.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from torch import nn

import thrifty.export.engines.signal_stack as signal_stack
from thrifty.compress.moves.conversions import conversion_s, converted, gain, missing, slows_writing
from thrifty.compress.moves.forms import formed
from thrifty.compress.moves.layers import errors_by_layer
from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.errors import BundleError
from thrifty.export.engines.openvino import openvino

# seconds of statistics and of building the graph, a layer
LAYER_S = 0.25
# shares of the layers that are kept as they were, one after the other
KEPT = (1 / 8, 1 / 4, 1 / 2)
# int8 products are this much faster than those of the arithmetic beside them, where a processor has both
INT8 = 2.0
GROUP = 64
# shares of the weights in four bits, rounded by calibration rows, one after the other
FOUR_BITS = (1.0, 0.8, 0.5)


def nncf() -> Any:
    """Import NNCF, which sends nothing from here, as `thrifty.export.engines.openvino.openvino` says."""
    openvino()
    with _quiet():
        import nncf

        nncf.set_log_level(logging.ERROR)
    return nncf


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep progress bars from stdout, and warnings that no user can mend."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _inputs(context: Context) -> list[np.ndarray]:
    return [np.asarray(each["x"]) for each in context.calibration]


def _static(context: Context, candidate: Candidate, kept: tuple[str, ...] = ()) -> Any:
    library = nncf()
    rows = [row for x in _inputs(context) for row in np.array_split(x, max(1, len(x) // 8))]
    named = (type(each).__name__ for each in candidate.model.modules())
    attends = any("attention" in name.lower() for name in named)
    try:
        with _quiet(), signal_stack.kept():
            return library.quantize(
                converted(context, candidate, "openvino").clone(),
                library.Dataset(rows),
                subset_size=len(rows),
                target_device=library.TargetDevice.CPU,
                model_type=library.ModelType.TRANSFORMER if attends else None,
                ignored_scope=library.IgnoredScope(names=list(kept)) if kept else None,
            )
    except Exception as error:  # it has no kind of error of its own for a graph that it cannot quantise
        raise BundleError(f"NNCF cannot quantise this model: {' '.join(str(error).split())[:300]}") from error


def _int8(context: Context, candidate: Candidate) -> Candidate:
    made = _static(context, candidate)
    rows = sum(len(x) for x in _inputs(context))
    says = f"products in int8 by OpenVINO, ranges of {rows} training rows"
    return formed(context, candidate, "int8", says, made, engine="openvino", precision="int8")


def _milder(context: Context, base: Candidate, over: Candidate) -> Candidate | None:
    """Keep the layers that err most; more of them each time, up to half."""
    key = (id(base.model), "layers by error")
    if key not in context.kept:
        assert over.form is not None
        plain = converted(context, base, "openvino")
        context.kept[key] = [errors_by_layer(plain, over.form.made, _inputs(context)[:4]), list(KEPT)]
    errors, shares = context.kept[key]
    if not shares or not errors:
        return None
    kept = tuple(errors)[: max(1, round(shares.pop(0) * len(errors)))]
    says = (
        f"products in int8 by OpenVINO, but for the {len(kept)} of {len(errors)} layers that erred most, "
        f"by {min(errors[name] for name in kept):.2g} of their output and more"
    )
    made = _static(context, base, kept)
    return formed(context, base, "int8", says, made, engine="openvino", precision="int8")


def _weights(bits: int, context: Context, candidate: Candidate, share: float | None = None) -> Candidate:
    """Keep weights in fewer bits, each rounded to its nearest; with a share, so many of them in four bits, by rows.

    With rows, channels that matter more are scaled up before (AWQ: Lin et al. 2023), and what rounding a weight does to
    the output is made up for by those after it (GPTQ: Frantar et al. 2022); the other weights are kept in eight bits.
    """
    library = nncf()
    modes = library.CompressWeightsMode
    how = {"mode": modes.INT8_ASYM} if bits == 8 else {"mode": modes.INT4_SYM, "ratio": 1.0, "group_size": GROUP}
    inputs = _inputs(context)
    if share is not None:
        rows = sum(len(x) for x in inputs)
        how |= {
            "ratio": share,
            "dataset": library.Dataset(inputs),
            "subset_size": len(inputs),
            "awq": True,
            "gptq": True,
        }
    try:
        with _quiet(), signal_stack.kept():
            made = library.compress_weights(converted(context, candidate, "openvino").clone(), **how)
    except Exception as error:  # as above
        raise BundleError(f"NNCF cannot compress these weights: {' '.join(str(error).split())[:300]}") from error
    precision = "bf16" if "bf16" in context.device.flops_per_second else "fp32"
    says = (
        ("weights" if share in (None, 1.0) else f"{share:.0%} of the weights")
        + f" in int{bits}"
        + (f", by groups of {GROUP}" if bits == 4 else "")
        + ("" if share is None else f", rounded by {rows} training rows (AWQ, GPTQ)")
        + ("" if share in (None, 1.0) else ", the others in int8")
        + f", computed by OpenVINO in {precision}"
    )
    return formed(context, candidate, f"weights_int{bits}", says, made, engine="openvino", precision=precision)


def _milder_weights(context: Context, base: Candidate, over: Candidate) -> Candidate | None:
    """Round by calibration rows; then with fewer of the weights in four bits each time."""
    shares = context.kept.setdefault((id(base.model), "shares in four bits"), list(FOUR_BITS))
    return _weights(4, context, base, shares.pop(0)) if shares else None


def _dynamic(context: Context, candidate: Candidate) -> Candidate:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, target = context.scratch / "plain.onnx", context.scratch / "dynamic.onnx"
    source.write_bytes(converted(context, candidate, "onnx").SerializeToString())
    import onnx

    with _quiet(), _no_logs():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8)
    made = onnx.load(target)
    says = "products in int8 by ONNX Runtime, ranges of each request"
    return formed(context, candidate, "int8_dynamic", says, made, engine="onnx", precision="int8")


@contextlib.contextmanager
def _no_logs() -> Iterator[None]:
    """The quantiser tells the root logger what it would rather have."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _products(candidate: Candidate) -> int:
    return sum(isinstance(each, nn.Linear | nn.Conv1d | nn.Conv2d) for each in candidate.model.modules())


def _quantises(package: str, engine: str, context: Context, candidate: Candidate) -> str | None:
    return missing(package) or missing(engine) or slows_writing(context)


def _language(context: Context, candidate: Candidate) -> str | None:
    if context.run.task != "language":
        return "for language models, whose time goes into reading weights"
    return missing("nncf") or missing("openvino") or slows_writing(context)


def _int8_hope(context: Context, candidate: Candidate) -> float:
    arithmetic = "bf16" if "bf16" in context.device.flops_per_second else "fp32"
    return gain(context, arithmetic, bytes_saved=4.0) * (1.0 if context.objective == "size" else INT8)


def _weights_move(bits: int) -> Move:
    return Move(
        name=f"weights_int{bits}",
        says=f"weights kept in {bits} bits, computed in more",
        applies=_language,
        price=lambda context, candidate: conversion_s(context, candidate) + LAYER_S * _products(candidate),
        hope=lambda context, candidate: gain(context, "bf16", bytes_saved=32 / bits),
        apply=partial(_weights, bits),
        last=True,
        milder=_milder_weights if bits == 4 else None,
    )


QUANTISING = (
    Move(
        name="int8",
        says="products in int8 by OpenVINO, ranges of calibration rows",
        applies=partial(_quantises, "nncf", "openvino"),
        price=lambda context, candidate: conversion_s(context, candidate) + 3 + LAYER_S * _products(candidate),
        hope=_int8_hope,
        apply=_int8,
        last=True,
        milder=_milder,
    ),
    Move(
        name="int8_dynamic",
        says="products in int8 by ONNX Runtime, ranges of each request",
        applies=partial(_quantises, "onnx", "onnxruntime"),
        price=lambda context, candidate: conversion_s(context, candidate, "onnx") + 2,
        hope=lambda context, candidate: gain(context, "fp32", bytes_saved=4.0) * INT8,
        apply=_dynamic,
        last=True,
    ),
    _weights_move(8),
    _weights_move(4),
)  # fmt: skip
