"""wav2vec 2.0 as transformers has it: `thrifty.models.wav2vec2.Wav2Vec2`, its joint product taken apart.

What tells classes is a ``Wav2Vec2ForSequenceClassification`` there, what transcribes a ``Wav2Vec2ForCTC``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from thrifty.models.exchange.form import MAX_LAYERS, Arguments, Config, Form, Pair, layer

CLASSES, TRANSCRIPTS = "Wav2Vec2ForSequenceClassification", "Wav2Vec2ForCTC"
# what a config means that leaves it out (Baevski et al. 2020, section 4.2)
CHANNELS, KERNELS, STRIDES = (512,) * 7, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
_BLANK = 0


def _arguments(config: Config) -> dict[str, Any]:
    width, norm = config.count("hidden_size", 768), config.only("feat_extract_norm", "group", "layer")
    config.only("intermediate_size", 4 * width)
    config.only("hidden_act", "gelu")
    config.only("feat_extract_activation", "gelu")
    config.only("layer_norm_eps", 1e-5)
    config.only("add_adapter", False)
    config.only("adapter_attn_dim", None)
    config.only("use_weighted_layer_sum", False)
    channels = config.counts("conv_dim", CHANNELS)
    transcribes = config.values.get("architectures") == [TRANSCRIPTS]
    return {
        "channels": list(channels),
        "kernels": list(config.counts("conv_kernel", KERNELS, length=len(channels))),
        "strides": list(config.counts("conv_stride", STRIDES, length=len(channels))),
        "norm": norm,
        "bias": config.flag("conv_bias", False),
        "window": config.count("num_conv_pos_embeddings", 128),
        "groups": config.count("num_conv_pos_embedding_groups", 16),
        "layers": config.count("num_hidden_layers", 12, most=MAX_LAYERS),
        "width": width,
        "heads": config.count("num_attention_heads", 12),
        "stable": config.flag("do_stable_layer_norm", False),
        "projected": config.count("classifier_proj_size", 256),
        "outputs": config.count("vocab_size", 32) if transcribes else config.classes(),
        "transcribes": transcribes,
    }


def _config(arguments: Arguments) -> dict[str, Any]:
    rate = arguments.get("dropout", 0.0)
    told = {"vocab_size": arguments["outputs"], "architectures": [TRANSCRIPTS]} if arguments["transcribes"] else {}
    return {
        "conv_dim": list(arguments["channels"]),
        "conv_kernel": list(arguments["kernels"]),
        "conv_stride": list(arguments["strides"]),
        "num_feat_extract_layers": len(arguments["channels"]),
        "feat_extract_norm": arguments["norm"],
        "conv_bias": arguments["bias"],
        "num_conv_pos_embeddings": arguments["window"],
        "num_conv_pos_embedding_groups": arguments["groups"],
        "num_hidden_layers": arguments["layers"],
        "hidden_size": arguments["width"],
        "num_attention_heads": arguments["heads"],
        "intermediate_size": 4 * arguments["width"],
        "do_stable_layer_norm": arguments["stable"],
        "classifier_proj_size": arguments["projected"],
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "layer_norm_eps": 1e-5,
        "pad_token_id": _BLANK,
        "hidden_dropout": rate,
        "feat_proj_dropout": rate,
        "final_dropout": rate,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "layerdrop": 0.0,
        # ours hides no frames in training, and has no vector that would stand for them
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        **told,
    }


def _pairs(arguments: Arguments) -> Iterator[Pair]:
    width, norm = arguments["width"], arguments["norm"]
    for n in range(len(arguments["channels"])):
        ours, theirs = f"convolutions.{n}", f"wav2vec2.feature_extractor.conv_layers.{n}"
        conv = layer(f"{ours}.conv", f"{theirs}.conv")
        yield from conv if arguments["bias"] else [next(conv)]
        if norm == "layer" or n == 0:
            yield from layer(f"{ours}.norm", f"{theirs}.layer_norm")
    yield from layer("norm_0", "wav2vec2.feature_projection.layer_norm")
    yield from layer("join", "wav2vec2.feature_projection.projection")
    positions = "wav2vec2.encoder.pos_conv_embed.conv"
    yield Pair("positions.gain", (f"{positions}.parametrizations.weight.original0",), boxed=2)
    yield Pair("positions.direction", (f"{positions}.parametrizations.weight.original1",))
    yield Pair("positions.bias", (f"{positions}.bias",))
    yield from layer("norm", "wav2vec2.encoder.layer_norm")
    for n in range(arguments["layers"]):
        ours, theirs = f"blocks.{n}", f"wav2vec2.encoder.layers.{n}"
        for kind in ("weight", "bias"):
            qkv = tuple(f"{theirs}.attention.{each}_proj.{kind}" for each in "qkv")
            yield Pair(f"{ours}.attention.qkv.{kind}", qkv, rows=(width, width, width))
        yield from layer(f"{ours}.attention.proj", f"{theirs}.attention.out_proj")
        yield from layer(f"{ours}.norm_1", f"{theirs}.layer_norm")
        yield from layer(f"{ours}.mlp.up", f"{theirs}.feed_forward.intermediate_dense")
        yield from layer(f"{ours}.mlp.proj", f"{theirs}.feed_forward.output_dense")
        yield from layer(f"{ours}.norm_2", f"{theirs}.final_layer_norm")
    if arguments["transcribes"]:
        # our blank is token 0
        yield from (replace(each, head=True, first="pad_token_id") for each in layer("fc", "lm_head"))
        return
    for ours, theirs in (("projector", "projector"), ("fc", "classifier")):
        yield from (replace(each, head=True) for each in layer(ours, theirs))


WAV2VEC2 = Form(
    family="wav2vec2",
    architecture=CLASSES,
    arguments=_arguments,
    config=_config,
    pairs=_pairs,
    inner="wav2vec2.",
    # as torch called them before 2.0
    renamed=(
        (".conv.weight_g", ".conv.parametrizations.weight.original0"),
        (".conv.weight_v", ".conv.parametrizations.weight.original1"),
    ),
    # what it was trained by without answers, and the heads of other tasks
    spare=("wav2vec2.masked_spec_embed", "quantizer.*", "project_*", "lm_head.*", "projector.*", "classifier.*"),
)
