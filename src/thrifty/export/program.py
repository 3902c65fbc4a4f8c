"""A torch model as a program that knows no Python: traced by torch.export, its numbers of rows and of tokens open."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from thrifty.errors import BundleError
from thrifty.export.examples import has_length
from thrifty.spec import Dataset


def sizes_of(data: Dataset) -> dict[int, Dim]:
    """Return the dimensions of a model's input that may vary, by their place."""
    return {0: Dim("batch")} | ({1: Dim("length")} if has_length(data) else {})


def traced(model: nn.Module, x: Tensor, data: Dataset) -> ExportedProgram:
    """Trace a model of one input.

    Raises:
        BundleError: the model does something that cannot be traced, or that holds a size fast.
    """
    varies = dict.fromkeys(sizes_of(data), Dim.DYNAMIC)
    try:
        with torch.inference_mode(False), torch.no_grad(), quiet():
            return torch.export.export(model, (x,), dynamic_shapes=(varies,))
    except Exception as error:  # the tracer raises many kinds of its own
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"this model cannot be traced by torch.export: {reason}", mend="Keep serving the torch bundle."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a converter's warnings of what torch itself has deprecated from the user, who could mend nothing."""
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.filterwarnings("ignore", category=kind)
        yield
