"""What moves to whole numbers share, whoever computes them: rows for ranges, layers that are kept, quiet libraries."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
from torch import nn

from thrifty.compress.moves.conversions import conversion_s, gain, missing, slows_writing
from thrifty.compress.moves.move import Candidate, Context
from thrifty.export.engines.isa import saturates
from thrifty.models.inputs import to_tensors

# seconds of statistics and of building the graph, a layer
LAYER_S = 0.25
# shares of the layers that are kept as they were, one after the other
KEPT = (1 / 8, 1 / 4, 1 / 2)
# int8 products are this much faster than those of the arithmetic beside them, where a processor has both
INT8 = 2.0
# calibration batches that layers are compared on
COMPARED = 4


def rows_of(context: Context) -> list[np.ndarray]:
    """Return the inputs of the calibration batches, of the types that a model takes."""
    return [to_tensors({"x": each["x"]})["x"].numpy() for each in context.calibration]


def seven_bits(context: Context) -> bool:
    """Say whether weights take seven bits: sums of whole products of eight would saturate on this processor."""
    return saturates(context.device.isa)


def worst(
    context: Context, base: Candidate, move: str, errors: Callable[[], Mapping[str, float]]
) -> tuple[tuple[str, ...], str] | None:
    """Choose the layers to be kept as they were, those that err most; more of them each time, up to half.

    Args:
        context: of the move.
        base: that is quantised.
        move: its name.
        errors: of each layer by its name, the largest first; asked once.

    Returns:
        Their names, and what to say of them; None once there is nothing left to try.
    """
    key = (id(base.model), f"layers by error of {move}")
    if key not in context.kept:
        context.kept[key] = (dict(errors()), list(KEPT))
    found, shares = context.kept[key]
    if not shares or not found:
        return None
    kept = tuple(found)[: max(1, round(shares.pop(0) * len(found)))]
    least = min(found[name] for name in kept)
    return kept, (
        f"but for the {len(kept)} of {len(found)} layers that erred most, by {least:.2g} of their output and more"
    )


def products(candidate: Candidate) -> int:
    """Count the layers that multiply by weights."""
    return sum(isinstance(each, nn.Linear | nn.Conv1d | nn.Conv2d) for each in candidate.model.modules())


def attends(candidate: Candidate) -> bool:
    """Say whether a model has attention, whose sums of many terms whole numbers hurt most."""
    return any("attention" in type(each).__name__.lower() for each in candidate.model.modules())


def quantises(*packages: str) -> Callable[[Context, Candidate], str | None]:
    """Return what says why a move that takes packages cannot be taken."""
    return partial(_quantises, packages)


def _quantises(packages: tuple[str, ...], context: Context, candidate: Candidate) -> str | None:
    return next(filter(None, map(missing, packages)), None) or slows_writing(context)


def priced(engine: str, extra_s: float, *, layer_s: float = LAYER_S) -> Callable[[Context, Candidate], float]:
    """Return what predicts the seconds of quantising for an engine, beside those of converting to it."""
    return lambda context, candidate: conversion_s(context, candidate, engine) + extra_s + layer_s * products(candidate)


def hope_beside(arithmetic: str) -> Callable[[Context, Candidate], float]:
    """Return by how much int8 can divide the objective at the very most, beside an arithmetic, where there is it."""

    def hope(context: Context, candidate: Candidate) -> float:
        beside = arithmetic if arithmetic in context.device.flops_per_second else "fp32"
        return gain(context, beside, bytes_saved=4.0) * (1.0 if context.objective == "size" else INT8)

    return hope


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars from stdout, warnings that no user can mend, and what quantisers tell the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
