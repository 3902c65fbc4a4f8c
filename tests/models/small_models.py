"""Small models of every family with drawn weights, and a batch of each; for tests that cross families."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from thrifty.models import build
from thrifty.spec import ModelPlan

TEXT = {"vocabulary": 32, "length": 12, "layers": 2, "width": 32, "heads": 4}
SOUND = {"layers": 2, "width": 32, "heads": 4, "outputs": 5, "transcribes": False}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "bert": {**TEXT, "classes": 3},
    "bert_original": {**TEXT, "classes": 3},
    "gpt": TEXT,
    "llama": {**TEXT, "kv_heads": 2, "ffn": 48, "tied": True},
    "vit": {"patch": 4, "layers": 2, "width": 32, "heads": 4, "channels": 3, "side": 16, "classes": 4},
    "resnet": {"stem": "cifar", "block": "basic", "shortcut": "pad", "blocks": [2, 2], "widths": [8, 16],
               "channels": 3, "classes": 4},
    "bottleneck": {"stem": "cifar", "block": "bottleneck", "shortcut": "project", "blocks": [2, 1], "widths": [8, 16],
                   "channels": 3, "classes": 4},
    "fast_convnet": {"widths": [16, 24], "scale": 0.11, "channels": 3, "classes": 4},
    "mlp": {"inputs": 768, "widths": [32, 24], "classes": 4},
    "speech": {**SOUND, "bands": 12, "channels": 8, "kernel": 5, "drop": 0.1},
    "wav2vec2": {**SOUND, "channels": [8] * 3, "kernels": [10, 3, 3], "strides": [5, 2, 2], "norm": "group",
                 "bias": False, "window": 8, "groups": 4, "stable": False, "projected": 16},
    "tabular": {"numbers": 3, "codes": 2, "vocabulary": 9, "outputs": 4, "members": 3, "pieces": 8, "embedding": 4,
                "widths": [24, 16], "dropout": 0.1},
    "ngrams": {"longest": 2, "buckets": 31, "width": 8, "power": 1.0, "gain": 1.0, "classes": 3},
}  # fmt: skip
TASKS = dict.fromkeys(ARGUMENTS, "classify") | {"gpt": "language", "llama": "language"}


def small_plan(family: str) -> ModelPlan:
    """The plan of a small model; of a ResNet of bottlenecks under the name ``bottleneck``."""
    named = "resnet" if family == "bottleneck" else family
    return ModelPlan(name=f"small-{family}", family=named, arguments=ARGUMENTS[family])


def drawn(plan: ModelPlan, seed: int = 1) -> nn.Module:
    """A model in ``eval`` mode whose every weight and statistic is drawn: no zero or one hides anything."""
    model = build(plan)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and name != "filters":
                spread = 0.1 if tensor.dim() < 2 else 1 / max(1, tensor[0].numel()) ** 0.5
                noise = spread * torch.randn(tensor.shape, generator=generator)
                around_one = name.endswith("running_var") or (tensor.dim() == 1 and bool((tensor == 1).all()))
                tensor.copy_(noise.abs() + 0.5 if around_one else noise)
    return model.eval()


def batch_of(family: str, rows: int = 6, seed: int = 2) -> dict[str, np.ndarray]:
    """Rows that a small model reads, with answers."""
    draw = np.random.default_rng(seed)
    arguments = ARGUMENTS[family]
    if ("vocabulary" in arguments and "numbers" not in arguments) or family == "ngrams":
        x = draw.integers(1, 30, (rows, 12))
        if family in {"gpt", "llama"}:
            return {"x": x, "y": draw.integers(0, 32, x.shape)}
        x[0, 8:] = 0
    elif family == "tabular":
        x = np.concatenate([draw.random((rows, 3)), draw.integers(0, 9, (rows, 2))], 1).astype(np.float32)
    elif family == "speech":
        x = draw.standard_normal((rows, 16, 12)).astype(np.float32)
    elif family == "wav2vec2":
        x = draw.standard_normal((rows, 8, 40)).astype(np.float32)
    else:
        x = draw.standard_normal((rows, 3, 16, 16)).astype(np.float32)
    return {"x": x, "y": draw.integers(0, 3, rows)}
