"""Moves to int8 on ONNX Runtime: by ranges seen on calibration rows, or by ranges of each request.

Where static int8 is worse than allowed, the layers that err most are kept as they were; dynamic int8 then has a scale
for each output of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import nn

from thrifty.compress.moves.conversions import converted
from thrifty.compress.moves.forms import formed
from thrifty.compress.moves.int8 import (
    COMPARED,
    attends,
    hope_beside,
    priced,
    quantises,
    quiet,
    rows_of,
    seven_bits,
    worst,
)
from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.compress.moves.onnx_layers import PRODUCTS, errors_by_layer
from thrifty.errors import BundleError

BY = "products in int8 by ONNX Runtime"
# what is given back in floats: sums of a stream lose nothing then
_IN_FLOATS = ["MatMul", "Gemm"]


class _Rows:
    """Calibration rows as ONNX Runtime asks for them."""

    def __init__(self, inputs: Sequence[np.ndarray]) -> None:
        self._left: Iterator[np.ndarray] = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch by the input's name, None after the last."""
        x = next(self._left, None)
        return None if x is None else {"x": x}


def _plain(context: Context, candidate: Candidate) -> Any:
    """The graph with norms folded and shapes told, which ranges are taken of; made once in a search."""
    key = (id(candidate.model), "onnx before int8")
    if key not in context.kept:
        import onnx
        from onnxruntime.quantization import quant_pre_process

        source, target = context.scratch / "plain.onnx", context.scratch / "folded.onnx"
        source.write_bytes(converted(context, candidate, "onnx").SerializeToString())
        with quiet():
            quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
        context.kept[key] = onnx.load(target)
    return context.kept[key]


def _static(context: Context, candidate: Candidate, kept: Sequence[str] = ()) -> Any:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    plain = _plain(context, candidate)
    # of a network of convolutions what lies between them is whole numbers too; elsewhere products alone
    convolves = any(isinstance(each, nn.Conv2d) for each in candidate.model.modules()) and not attends(candidate)
    in_floats = {} if convolves else {"OpTypesToExcludeOutputQuantization": _IN_FLOATS}
    source, target = context.scratch / "source.onnx", context.scratch / "static.onnx"
    source.write_bytes(plain.SerializeToString())
    try:
        with quiet():
            quantize_static(
                str(source),
                target,
                _Rows(rows_of(context)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=None if convolves else list(PRODUCTS),
                per_channel=True,
                reduce_range=seven_bits(context),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*kept, *_stacked(plain)],
                extra_options={"MatMulConstBOnly": True, **in_floats},
            )
    except Exception as error:  # it has no kind of error of its own for a graph that it cannot quantise
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"ONNX Runtime cannot quantise this model: {reason}") from error
    return onnx.load(target)


def _int8(context: Context, candidate: Candidate) -> Candidate:
    made = _static(context, candidate)
    rows = sum(len(x) for x in rows_of(context))
    says = f"{BY}, ranges of {rows} training rows"
    return formed(context, candidate, "int8_onnx", says, made, engine="onnx", precision="int8")


def _milder(context: Context, base: Candidate, over: Candidate) -> Candidate | None:
    """Keep the layers that err most; more of them each time, up to half."""
    assert over.form is not None
    plain, quantised = _plain(context, base), over.form.made
    found = worst(context, base, "int8_onnx", lambda: errors_by_layer(plain, quantised, rows_of(context)[:COMPARED]))
    if found is None:
        return None
    kept, says = found
    made = _static(context, base, kept)
    return formed(context, base, "int8_onnx", f"{BY}, {says}", made, engine="onnx", precision="int8")


def _dynamic(context: Context, candidate: Candidate) -> Candidate:
    return _dynamically(context, candidate, by_output=False)


def _milder_dynamic(context: Context, base: Candidate, over: Candidate) -> Candidate | None:
    """Give each output of a layer a scale of its own, once."""
    key = (id(base.model), "int8_dynamic by output")
    if key in context.kept:
        return None
    context.kept[key] = True
    return _dynamically(context, base, by_output=True)


def _dynamically(context: Context, candidate: Candidate, *, by_output: bool) -> Candidate:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, target = context.scratch / "plain.onnx", context.scratch / "dynamic.onnx"
    plain = converted(context, candidate, "onnx")
    source.write_bytes(plain.SerializeToString())
    with quiet():
        quantize_dynamic(
            source,
            target,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_stacked(plain) if by_output else [],
            per_channel=by_output,
            reduce_range=seven_bits(context),
        )
    says = f"{BY}, ranges of each request" + (", a scale for each output" if by_output else "")
    return formed(context, candidate, "int8_dynamic", says, onnx.load(target), engine="onnx", precision="int8")


def _stacked(plain: Any) -> list[str]:
    """Products with a stack of matrices, for whose columns ONNX Runtime takes no scales of their own (1.32)."""
    stacks = {each.name for each in plain.graph.initializer if len(each.dims) != 2}
    return [node.name for node in plain.graph.node if node.op_type == "MatMul" and stacks & {*node.input}]


ONNX_INT8 = (
    Move(
        name="int8_onnx",
        says=f"{BY}, ranges of calibration rows",
        applies=quantises("onnx", "onnxruntime"),
        price=priced("onnx", 3.0),
        hope=hope_beside("fp32"),
        apply=_int8,
        last=True,
        milder=_milder,
    ),
    Move(
        name="int8_dynamic",
        says=f"{BY}, ranges of each request",
        applies=quantises("onnx", "onnxruntime"),
        price=priced("onnx", 2.0, layer_s=0.0),
        hope=hope_beside("fp32"),
        apply=_dynamic,
        last=True,
        milder=_milder_dynamic,
    ),
)
