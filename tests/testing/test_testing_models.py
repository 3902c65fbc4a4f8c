"""The contract of models holds for every family, and fails a model that breaks it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thrifty.models import MODELS
from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.llama import Llama
from thrifty.models.mlp import MLP
from thrifty.models.resnet import ResNet
from thrifty.testing import check_model

RANDOM = np.random.default_rng(0)
IMAGES = {"x": RANDOM.normal(size=(8, 3, 8, 8)).astype(np.float32), "y": RANDOM.integers(0, 4, 8)}
TOKENS = RANDOM.integers(0, 20, (8, 11))
TEXT = {"x": TOKENS[:, :-1], "y": np.where(RANDOM.random((8, 10)) < 0.2, -100, TOKENS[:, 1:])}

SMALL_BOTTLENECK = {"stem": "imagenet", "block": "bottleneck", "shortcut": "project", "blocks": [1, 1]}
FAMILIES: dict[str, tuple[Callable[[], nn.Module], dict[str, np.ndarray], str]] = {
    "resnet, small images": (
        lambda: ResNet(**MODELS["resnet8"].arguments, channels=3, classes=4),
        IMAGES,
        "classify",
    ),
    "resnet, large images": (
        lambda: ResNet(**SMALL_BOTTLENECK, widths=[8, 16], channels=3, classes=4),  # type: ignore[arg-type]
        {**IMAGES, "x": RANDOM.normal(size=(8, 3, 64, 64)).astype(np.float32)},
        "classify",
    ),
    "mlp": (lambda: MLP(inputs=192, widths=[32, 16], classes=4), IMAGES, "classify"),
    "gpt": (lambda: GPT(vocabulary=20, length=16, layers=2, width=32, heads=2), TEXT, "language"),
    "llama": (
        lambda: Llama(vocabulary=20, length=16, layers=2, width=32, heads=4, kv_heads=2, ffn=48, tied=False),
        TEXT,
        "language",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("init", ["default", "he_uniform", "xavier_normal"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_the_contract(family: str, init: str) -> None:
    make, batch, task = FAMILIES[family]

    def build() -> nn.Module:
        model = make()
        initialise(model, init, 0)
        return model

    check_model(build, batch, task)


class Broken(nn.Module):
    """A linear model with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.fc = nn.Linear(192, 4)
        nn.init.normal_(self.fc.weight, std=0.05)
        self.spare = nn.Parameter(torch.ones(4)) if fault == "unused" else None
        self.register_buffer("calls", torch.zeros(()), persistent=fault == "counts")
        self.secret = torch.randn(4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if self.fault == "mixes":
            x = x - x.mean(0)
        if self.fault == "dropout":
            x = nn.functional.dropout(x, 0.5, training=True)
        logits: Tensor = self.fc(x)
        if self.fault == "nan":
            logits = logits / 0 * 0
        if self.fault == "counts":
            self.calls += 1
        if self.fault == "hides":
            logits = logits + self.secret
        if self.fault == "deaf":
            logits = logits * 1e-6
        return logits


FAULTS = {
    "unused": "no gradient reaches 'spare'",
    "nan": "the loss is",
    "dropout": "two answers in eval mode",
    "counts": r"evaluating changed \['calls'\]",
    "mixes": "depends on the",
    "hides": "read back from its weights answers otherwise",
    "deaf": "is still",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_model_is_told_what_it_breaks(fault: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=FAULTS[fault]):
        check_model(lambda: Broken(fault), IMAGES, "classify")


def test_the_sound_one_passes() -> None:
    torch.manual_seed(0)
    check_model(lambda: Broken("none"), IMAGES, "classify")


def test_a_batch_too_small_to_say_anything() -> None:
    with pytest.raises(AssertionError, match="at least four"):
        check_model(lambda: Broken("none"), {key: value[:2] for key, value in IMAGES.items()}, "classify")
