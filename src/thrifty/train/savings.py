"""What a plan saves, each a function applied to the model from outside, in the one order that goes together."""

from __future__ import annotations

from torch import nn

from thrifty.models.adapters import adapting, merging, start
from thrifty.models.compiling import compiled_for, compiling
from thrifty.models.dropout import use_dropout
from thrifty.models.inputs import to_device
from thrifty.models.precision import in_fp32, with_precision
from thrifty.models.recompute import recomputing
from thrifty.spec import KindName, Plan


def with_savings(model: nn.Module, plan: Plan) -> nn.Module:
    """Return the model as the plan trains it, on its device; parameters may be others than before.

    Args:
        model: built and initialised.
        plan: of the run.
    """
    start(adapting(use_dropout(model, plan.dropout), plan.adapt), plan.seed)
    to_device(model, plan.device, plan.memory_format)
    return with_precision(model, plan.precision, accumulating=plan.batch.accumulation > 1)


def computing_as(model: nn.Module, plan: Plan, kind: KindName) -> nn.Module:
    """Have a model's blocks compiled, and computed again in the backward pass, as the plan says; returns the model.

    Args:
        model: of `with_savings`.
        plan: of the run.
        kind: of the data.
    """
    compiling(model, plan.compile, **compiled_for(plan.batch, kind))
    return recomputing(model, plan.checkpointing)


def without_savings(model: nn.Module) -> nn.Module:
    """Return a trained model as it was built, with what it has learned; adapters are part of its weights."""
    compiling(recomputing(model, "none"), "none")
    return merging(use_dropout(in_fp32(model), "sampled"))
