"""ResNet as transformers has it: `thrifty.models.resnet.ResNet` with a stem and shortcuts as for ImageNet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from thrifty.errors import JobError
from thrifty.models.exchange.form import MAX_LAYERS, Arguments, Config, Form, Pair, layer

# what the convolutions inside a bottleneck are narrower by, and how many a block has
NARROWER = {"basic": 1, "bottleneck": 4}
CONVOLUTIONS = {"basic": 2, "bottleneck": 3}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _arguments(config: Config) -> dict[str, Any]:
    block = config.only("layer_type", *NARROWER)
    sizes = config.counts("hidden_sizes")
    widths = [max(1, size // NARROWER[block]) for size in sizes]
    config.only("hidden_sizes", [width * NARROWER[block] for width in widths])
    config.only("embedding_size", widths[0])
    config.only("hidden_act", "relu")
    config.only("downsample_in_first_stage", False)
    config.only("downsample_in_bottleneck", False)
    return {
        "stem": "imagenet",
        "block": block,
        "shortcut": "project",
        "blocks": list(config.counts("depths", most=MAX_LAYERS, length=len(sizes))),
        "widths": widths,
        "channels": config.count("num_channels", 3),
        "classes": config.classes(),
    }


def _config(arguments: Arguments) -> dict[str, Any]:
    _check(arguments)
    return {
        "layer_type": arguments["block"],
        "embedding_size": arguments["widths"][0],
        "hidden_sizes": [NARROWER[arguments["block"]] * width for width in arguments["widths"]],
        "depths": list(arguments["blocks"]),
        "num_channels": arguments["channels"],
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }


def _pairs(arguments: Arguments) -> Iterator[Pair]:
    _check(arguments)
    block, inputs = arguments["block"], arguments["widths"][0]
    yield from _normalised("conv1", "bn1", "resnet.embedder.embedder")
    for stage, (count, width) in enumerate(zip(arguments["blocks"], arguments["widths"], strict=True)):
        outputs = width * NARROWER[block]
        for n in range(count):
            ours, theirs = f"layer{stage + 1}.{n}", f"resnet.encoder.stages.{stage}.layers.{n}"
            for each in range(CONVOLUTIONS[block]):
                yield from _normalised(f"{ours}.conv{each + 1}", f"{ours}.bn{each + 1}", f"{theirs}.layer.{each}")
            if n == 0 and (stage > 0 or inputs != outputs):
                yield from _normalised(f"{ours}.downsample.0", f"{ours}.downsample.1", f"{theirs}.shortcut")
    yield from (replace(each, head=True) for each in layer("fc", "classifier.1"))


def _normalised(convolution: str, norm: str, theirs: str) -> Iterator[Pair]:
    yield Pair(f"{convolution}.weight", (f"{theirs}.convolution.weight",))
    for each in ("weight", "bias", *STATISTICS):
        yield Pair(f"{norm}.{each}", (f"{theirs}.normalization.{each}",))


def _check(arguments: Arguments) -> None:
    stem, shortcut = arguments["stem"], arguments["shortcut"]
    if (stem, shortcut) != ("imagenet", "project"):
        raise JobError(
            f"a ResNet with stem '{stem}' and shortcuts '{shortcut}' has no form in Hugging Face's transformers",
            mend="Theirs are as for ImageNet: resnet18 to resnet152.",
        )


RESNET = Form(
    family="resnet",
    architecture="ResNetForImageClassification",
    arguments=_arguments,
    config=_config,
    pairs=_pairs,
    inner="resnet.",
)
