"""Which bundles hold a language model that writes many texts at once, and the model that does."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from thrifty.models import build
from thrifty.models.exchange import take_over, twin_of
from thrifty.spec import BundleInfo, ModelPlan

if TYPE_CHECKING:
    from torch import nn

    from thrifty.models.logits import Logits

# families whose attention takes a cache of pages
FAMILIES = ("gpt", "llama")


def can_write(info: BundleInfo) -> bool:
    """Say whether a bundle's model writes many texts at once; torch is not loaded for it."""
    return info.task == "language" and info.engine == "torch" and _plan(info.model, info.data.shape[0]) is not None


def can_write_in_int8(info: BundleInfo) -> bool:
    """Say whether torch's own writing has a form in int8 of a bundle's model."""
    return info.task == "language" and info.model.family in FAMILIES


def writing_model(model: nn.Module, plan: ModelPlan, length: int) -> nn.Module:
    """Return what writes for a model of which `can_write` is true: itself, or of one of transformers ours.

    Ours has the same weights and adds in another order, so that its logits differ in the last digits.

    Args:
        model: of the bundle, in ``eval`` mode.
        plan: that it was built from.
        length: of the texts that it reads.

    Raises:
        BundleError: the weights are not those of its config.
    """
    own = _plan(plan, length)
    assert own is not None, f"{plan.name} writes no texts"
    if own is plan:
        return model
    weights = next(model.parameters())
    twin = build(own).to(weights.device, weights.dtype)
    take_over(twin, own, cast("Logits", model).model)
    return twin.eval().requires_grad_(False)


def _plan(plan: ModelPlan, length: int) -> ModelPlan | None:
    """The plan of a model that keeps pages and computes what this one does."""
    if plan.family in FAMILIES:
        return plan
    twin = twin_of(plan, length) if plan.family == "hf" else None
    return twin if twin is not None and twin.family in FAMILIES else None
