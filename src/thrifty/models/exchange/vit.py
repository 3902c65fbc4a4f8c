"""ViT as transformers has it: `thrifty.models.vit.ViT`, its joint product taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from thrifty.models.exchange.form import MAX_LAYERS, Arguments, Config, Form, Pair, layer


def _arguments(config: Config) -> dict[str, Any]:
    width, side, patch = config.count("hidden_size"), config.count("image_size"), config.count("patch_size")
    # theirs leaves pixels out that fill no patch
    config.only("image_size", max(patch, side - side % patch))
    config.only("intermediate_size", 4 * width)
    config.only("hidden_act", "gelu")
    config.only("layer_norm_eps", 1e-12)
    config.only("qkv_bias", True)
    return {
        "patch": patch,
        "layers": config.count("num_hidden_layers", most=MAX_LAYERS),
        "width": width,
        "heads": config.count("num_attention_heads"),
        "channels": config.count("num_channels", 3),
        "side": side,
        "classes": config.classes(),
    }


def _config(arguments: Arguments) -> dict[str, Any]:
    return {
        "patch_size": arguments["patch"],
        "num_hidden_layers": arguments["layers"],
        "hidden_size": arguments["width"],
        "num_attention_heads": arguments["heads"],
        "intermediate_size": 4 * arguments["width"],
        "num_channels": arguments["channels"],
        "image_size": arguments["side"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "qkv_bias": True,
        # ours drops nothing
        "attention_probs_dropout_prob": 0.0,
        "hidden_dropout_prob": 0.0,
    }


def _pairs(arguments: Arguments) -> Iterator[Pair]:
    width = arguments["width"]
    yield Pair("first.weight", ("vit.embeddings.cls_token",), boxed=1)
    yield Pair("positions.weight", ("vit.embeddings.position_embeddings",), boxed=1)
    yield from layer("patches", "vit.embeddings.patch_embeddings.projection")
    for n in range(arguments["layers"]):
        ours, theirs = f"blocks.{n}", f"vit.encoder.layer.{n}"
        for kind in ("weight", "bias"):
            qkv = tuple(f"{theirs}.attention.attention.{each}.{kind}" for each in ("query", "key", "value"))
            yield Pair(f"{ours}.attention.qkv.{kind}", qkv, rows=(width, width, width))
        yield from layer(f"{ours}.attention.proj", f"{theirs}.attention.output.dense")
        yield from layer(f"{ours}.norm_1", f"{theirs}.layernorm_before")
        yield from layer(f"{ours}.norm_2", f"{theirs}.layernorm_after")
        yield from layer(f"{ours}.mlp.up", f"{theirs}.intermediate.dense")
        yield from layer(f"{ours}.mlp.proj", f"{theirs}.output.dense")
    yield from layer("norm", "vit.layernorm")
    yield from (replace(each, head=True) for each in layer("fc", "classifier"))


VIT = Form(
    family="vit",
    architecture="ViTForImageClassification",
    arguments=_arguments,
    config=_config,
    pairs=_pairs,
    inner="vit.",
    spare=("vit.pooler.*", "vit.embeddings.mask_token"),
)
