"""Rates that go with a model's width, where a job asks for muP."""

from __future__ import annotations

from thrifty import models
from thrifty.errors import JobError
from thrifty.models.init import REST
from thrifty.models.mup import Steps, rate_shares, relative_width
from thrifty.planner.rules import Reasons
from thrifty.spec import Job, ModelPlan

# of steps that are of one size whatever the gradient's, and of those in proportion to it
STEPS: dict[str, Steps] = {
    "adam": "adam", "adamw": "adam", "adamw_8bit": "adam", "nadam": "adam", "gd": "sgd", "sgd": "sgd",
    "momentum": "sgd", "nesterov": "sgd",
}  # fmt: skip


def shares_of(init: str | dict[str, str], job: Job, model: ModelPlan, optimizer: str, why: Reasons) -> dict[str, float]:
    """Return the share of the rate that parameters get, by pattern of their names; none without muP.

    Raises:
        JobError: muP is asked for a model, an optimizer or a fine-tuning that it is not known for.
    """
    if (init if isinstance(init, str) else init[REST]) != "mup":
        return {}
    if optimizer not in STEPS:
        raise JobError(
            f"train.init is mup, and the rates that go with it are not known for {optimizer}",
            mend=f"Set train.optimizer to one of: {', '.join(STEPS)}.",
        )
    if model.weights or job.train.adapter is not None:
        raise JobError(
            "train.init is mup, and it is for models that are trained from the start",
            mend="Leave it out where weights were trained before.",
        )
    bare = models.build(model, "meta")
    shares = rate_shares(bare, STEPS[optimizer])
    width = relative_width(bare)
    why.say("rates", _shown(shares), f"muP at {width:g} base widths (Yang et al. 2022, table 3)")
    return shares


def _shown(shares: dict[str, float]) -> str:
    """Name the parameters of each share."""
    by_share: dict[float, list[str]] = {}
    for pattern, share in shares.items():
        by_share.setdefault(share, []).append(pattern)
    return "; ".join(f"{share:.3g} of it: {', '.join(names)}" for share, names in by_share.items()) or "all alike"
