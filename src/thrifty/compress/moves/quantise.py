"""Moves to whole numbers on OpenVINO, by NNCF: int8 by ranges seen on calibration rows, or weights alone.

Where static int8 is worse than allowed, the layers that err most are kept as they were.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np

import thrifty.export.engines.signal_stack as signal_stack
from thrifty.compress.moves.conversions import conversion_s, converted, gain, missing, slows_writing
from thrifty.compress.moves.forms import formed
from thrifty.compress.moves.int8 import (
    COMPARED,
    LAYER_S,
    attends,
    hope_beside,
    priced,
    products,
    quantises,
    quiet,
    rows_of,
    seven_bits,
    worst,
)
from thrifty.compress.moves.layers import errors_by_layer
from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.errors import BundleError
from thrifty.export.engines.openvino import openvino

GROUP = 64
# shares of the weights in four bits, rounded by calibration rows, one after the other
FOUR_BITS = (1.0, 0.8, 0.5)
BY = "products in int8 by OpenVINO"


def nncf() -> Any:
    """Import NNCF, which sends nothing from here, as `thrifty.export.engines.openvino.openvino` says."""
    openvino()
    with quiet():
        import nncf

        nncf.set_log_level(logging.ERROR)
    return nncf


def _static(context: Context, candidate: Candidate, kept: tuple[str, ...] = ()) -> Any:
    library = nncf()
    rows = [row for x in rows_of(context) for row in np.array_split(x, max(1, len(x) // 8))]
    more: dict[str, Any] = {}
    if seven_bits(context):
        more["advanced_parameters"] = library.AdvancedQuantizationParameters(overflow_fix=library.OverflowFix.ENABLE)
    try:
        with quiet(), signal_stack.kept():
            return library.quantize(
                converted(context, candidate, "openvino").clone(),
                library.Dataset(rows),
                subset_size=len(rows),
                target_device=library.TargetDevice.CPU,
                model_type=library.ModelType.TRANSFORMER if attends(candidate) else None,
                ignored_scope=library.IgnoredScope(names=list(kept)) if kept else None,
                **more,
            )
    except Exception as error:  # it has no kind of error of its own for a graph that it cannot quantise
        raise BundleError(f"NNCF cannot quantise this model: {' '.join(str(error).split())[:300]}") from error


def _int8(context: Context, candidate: Candidate) -> Candidate:
    made = _static(context, candidate)
    rows = sum(len(x) for x in rows_of(context))
    says = f"{BY}, ranges of {rows} training rows"
    return formed(context, candidate, "int8", says, made, engine="openvino", precision="int8")


def _milder(context: Context, base: Candidate, over: Candidate) -> Candidate | None:
    """Keep the layers that err most; more of them each time, up to half."""
    assert over.form is not None
    plain, quantised = converted(context, base, "openvino"), over.form.made
    found = worst(context, base, "int8", lambda: errors_by_layer(plain, quantised, rows_of(context)[:COMPARED]))
    if found is None:
        return None
    kept, says = found
    made = _static(context, base, kept)
    return formed(context, base, "int8", f"{BY}, {says}", made, engine="openvino", precision="int8")


def _weights(bits: int, context: Context, candidate: Candidate, share: float | None = None) -> Candidate:
    """Keep weights in fewer bits, each rounded to its nearest; with a share, so many of them in four bits, by rows.

    With rows, channels that matter more are scaled up before (AWQ: Lin et al. 2023), and what rounding a weight does to
    the output is made up for by those after it (GPTQ: Frantar et al. 2022); the other weights are kept in eight bits.
    """
    library = nncf()
    modes = library.CompressWeightsMode
    how = {"mode": modes.INT8_ASYM} if bits == 8 else {"mode": modes.INT4_SYM, "ratio": 1.0, "group_size": GROUP}
    inputs = rows_of(context)
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
        with quiet(), signal_stack.kept():
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


def _language(context: Context, candidate: Candidate) -> str | None:
    if context.run.task != "language":
        return "for language models, whose time goes into reading weights"
    return missing("nncf") or missing("openvino") or slows_writing(context)


def _weights_move(bits: int) -> Move:
    return Move(
        name=f"weights_int{bits}",
        says=f"weights kept in {bits} bits, computed in more",
        applies=_language,
        price=lambda context, candidate: conversion_s(context, candidate) + LAYER_S * products(candidate),
        hope=lambda context, candidate: gain(context, "bf16", bytes_saved=32 / bits),
        apply=partial(_weights, bits),
        last=True,
        milder=_milder_weights if bits == 4 else None,
    )


QUANTISING = (
    Move(
        name="int8",
        says=f"{BY}, ranges of calibration rows",
        applies=quantises("nncf", "openvino"),
        price=priced("openvino", 3.0),
        hope=hope_beside("bf16"),
        apply=_int8,
        last=True,
        milder=_milder,
    ),
    _weights_move(8),
    _weights_move(4),
)
