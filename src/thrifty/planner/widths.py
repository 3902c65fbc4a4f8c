"""Rates that go with a model's width, where a job asks for muP."""

from __future__ import annotations

from torch import nn

from thrifty import models
from thrifty.errors import JobError
from thrifty.models.init import REST
from thrifty.models.mup import Steps, rate_shares, relative_width
from thrifty.optim.groups import RULES, sort_parameters
from thrifty.planner.rules import Reasons
from thrifty.spec import Job, ModelPlan

STEPS: dict[str, Steps] = {
    "adam": "adam", "adamw": "adam", "adamw_8bit": "adam", "nadam": "adam", "lion": "adam", "rmsprop": "adam",
    "adagrad": "adam", "gd": "sgd", "sgd": "sgd", "momentum": "sgd", "nesterov": "sgd", "lamb": "lamb",
    "adafactor": "adafactor", "muon": "muon",
}  # fmt: skip
SOURCES: dict[Steps, str] = {
    "adam": "Yang et al. 2022, table 3", "lamb": "Gupta et al. 2026", "adafactor": "Everett et al. 2024",
    "muon": "Yang et al. 2023, Qiu et al. 2025",
}  # fmt: skip
# why others have none
UNKNOWN = {
    "soap": "the rule that is published for it (Qiu et al. 2025) supposes gradients that stay in their first basis; in "
    "measured steps its moves grow with the width by that rule, and fall by Adam's",
    "schedule_free": "no rule is published for the average of weights that it keeps",
}


def shares_of(init: str | dict[str, str], job: Job, model: ModelPlan, optimizer: str, why: Reasons) -> dict[str, float]:
    """Return the share of the rate that parameters get, by pattern of their names; none without muP.

    Raises:
        JobError: muP is asked for a model, an optimizer or a fine-tuning that it is not known for.
    """
    if (init if isinstance(init, str) else init[REST]) != "mup":
        return {}
    if optimizer not in STEPS:
        raise JobError(
            f"train.init is mup, and the rates that go with it are not known for {optimizer}"
            + (f": {UNKNOWN[optimizer]}" if optimizer in UNKNOWN else ""),
            mend=f"Set train.optimizer to one of: {', '.join(STEPS)}.",
        )
    if model.weights or job.train.adapter is not None:
        raise JobError(
            "train.init is mup, and it is for models that are trained from the start",
            mend="Leave it out where weights were trained before.",
        )
    bare = models.build(model, "meta")
    shares = rate_shares(bare, STEPS[optimizer], hidden_matrices(bare))
    width = relative_width(bare)
    why.say("rates", _shown(shares), f"muP at {width:g} base widths ({SOURCES.get(STEPS[optimizer], SOURCES['adam'])})")
    return shares


def hidden_matrices(model: nn.Module) -> set[str]:
    """Return the names of the parameters that optimizers of whole matrices take (`thrifty.optim.groups.RULES`)."""
    kinds = sort_parameters(model).by_kind
    taken = {id(each) for kind, rule in RULES.items() if rule.hidden for each in kinds[kind]}
    return {name for name, each in model.named_parameters() if id(each) in taken}


def _shown(shares: dict[str, float]) -> str:
    """Name the parameters of each share."""
    by_share: dict[float, list[str]] = {}
    for pattern, share in shares.items():
        by_share.setdefault(share, []).append(pattern)
    return "; ".join(f"{share:.3g} of it: {', '.join(names)}" for share, names in by_share.items()) or "all alike"
