"""A move to int8 by torch's own compiler: ranges of calibration rows by torchao (PT2E), native code.

The traced model gets what rounds and gives back around its linear layers (`X86InductorQuantizer`); the compiler makes
products in int8 of these where weights are constants to it, which is what freezing is for. Where it is worse than
allowed, the layers that err most are kept as they were.

Convolutions stay as they are: in a package their packed weights lose the sums that belong to them, and one of them
alone is off by a third of what it gives, without a word (torch 2.13; compiled in place, the same graph is exact). So
what was compiled is held against its own graph.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thrifty.compress.moves.forms import formed
from thrifty.compress.moves.int8 import (
    COMPARED,
    hope_beside,
    priced,
    products,
    quantises,
    quiet,
    rows_of,
    seven_bits,
    worst,
)
from thrifty.compress.moves.move import Candidate, Context, Move
from thrifty.errors import BundleError
from thrifty.export.examples import example
from thrifty.export.program import traced

BY = "products in int8 by native code of torch"
# tracing twice, and the compiler
COMPILING_S = 60.0
_LEVELS = 255
# of the largest logit, that native code may be off its own graph: where a sum is added in another order, a value that
# lies between two steps is rounded to the other one
_ROUNDED = 0.05


def errors_by_layer(model: nn.Module, inputs: Sequence[np.ndarray]) -> dict[str, float]:
    """Return what rounding its input and its weight does to each linear layer by itself.

    Inputs are rounded to 256 steps between the least and the most that was seen, weights of each output to 255 around
    zero, as the move does but for outliers, which it may cut off.

    Args:
        model: in ``eval`` mode, on the CPU.
        inputs: batches to ask with.

    Returns:
        By name, the root of the squared error over the squared output, the largest first.
    """
    layers = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear)}
    twins = {name: _rounded(each) for name, each in layers.items()}
    spans: dict[str, tuple[float, float]] = {}
    wrong, right = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0.0)

    def span(name: str, x: Tensor, output: Tensor) -> None:
        least, most = spans.get(name, (0.0, 0.0))
        spans[name] = min(least, float(x.min())), max(most, float(x.max()))

    def compare(name: str, x: Tensor, output: Tensor) -> None:
        least, most = spans[name]
        step = max((most - least) / _LEVELS, 1e-12)
        x = torch.fake_quantize_per_tensor_affine(x, step, round(-least / step), 0, _LEVELS)
        wrong[name] += float((twins[name](x) - output).double().square().sum())
        right[name] += float(output.double().square().sum())

    for told in (span, compare):
        handles = [
            each.register_forward_hook(lambda module, args, output, name=name, told=told: told(name, args[0], output))
            for name, each in layers.items()
        ]
        try:
            with torch.no_grad():
                for x in inputs:
                    model(torch.from_numpy(x))
        finally:
            for handle in handles:
                handle.remove()
    shares = {name: math.sqrt(wrong[name] / max(right[name], 1e-30)) for name in spans}
    return dict(sorted(shares.items(), key=lambda each: -each[1]))


@torch.no_grad()
def _rounded(layer: nn.Linear) -> nn.Linear:
    """A copy of a layer with its weight rounded, each output by a step of its own."""
    twin = copy.deepcopy(layer)
    step_O1 = (twin.weight.abs().amax(1, keepdim=True) / (_LEVELS // 2)).clamp_min(1e-12)
    twin.weight.copy_((twin.weight / step_O1).round() * step_O1)
    return twin


def _quantised(context: Context, candidate: Candidate, kept: Sequence[str] = ()) -> Any:
    """Return the traced model with what rounds and gives back."""
    with quiet():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
        from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
            X86InductorQuantizer,
            get_default_x86_inductor_quantization_config,
        )
    x = example(context.data)
    try:
        with quiet(), torch.inference_mode(False), torch.no_grad():
            how = get_default_x86_inductor_quantization_config(reduce_range=seven_bits(context))
            quantizer = X86InductorQuantizer().set_function_type_qconfig(nn.functional.linear, how)
            for name in kept:
                quantizer.set_module_name_qconfig(name, None)
            prepared = prepare_pt2e(traced(candidate.model, x, context.data).module(check_guards=False), quantizer)
            for rows in rows_of(context):
                prepared(torch.from_numpy(rows))
            return traced(convert_pt2e(prepared), x, context.data)
    except BundleError:
        raise
    except Exception as error:  # it has no kind of error of its own for a graph that it cannot quantise
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"torchao cannot quantise this model: {reason}") from error


def _compiled(context: Context, candidate: Candidate, says: str, kept: Sequence[str] = ()) -> Candidate:
    program = _quantised(context, candidate, kept)
    made = formed(context, candidate, "int8_torch", says, program, engine="aoti", precision="int8")
    x = torch.from_numpy(rows_of(context)[0])
    with quiet(), torch.no_grad():
        wanted, found = program.module(check_guards=False)(x), made.answers(x)
    apart = float((found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    if not apart <= _ROUNDED:  # NaN must fail too
        raise BundleError(f"torch's compiler computes int8 of this model otherwise: off by {apart:.2g} of its logits")
    return made


def _int8(context: Context, candidate: Candidate) -> Candidate:
    rows = sum(len(x) for x in rows_of(context))
    return _compiled(context, candidate, f"{BY}, ranges of {rows} training rows")


def _milder(context: Context, base: Candidate, over: Candidate) -> Candidate | None:
    """Keep the layers that err most; more of them each time, up to half."""
    found = worst(context, base, "int8_torch", lambda: errors_by_layer(base.model, rows_of(context)[:COMPARED]))
    if found is None:
        return None
    kept, says = found
    return _compiled(context, base, f"{BY}, {says}", kept)


def _applies(context: Context, candidate: Candidate) -> str | None:
    if not any(each.startswith(("avx", "amx")) for each in context.device.isa):
        return "torch's compiler has products of int8 for processors of the x86 kind alone"
    linear = sum(isinstance(each, nn.Linear) for each in candidate.model.modules())
    if 2 * linear <= products(candidate):
        return "of linear layers alone, and most of this model is convolutions"
    return quantises("torchao")(context, candidate)


TORCH_INT8 = Move(
    name="int8_torch",
    says=f"{BY}, ranges of calibration rows",
    applies=_applies,
    price=priced("aoti", COMPILING_S),
    hope=hope_beside("fp32"),
    apply=_int8,
    last=True,
    milder=_milder,
)
