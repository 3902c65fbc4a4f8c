"""BERT as transformers has it: `thrifty.models.bert_original.OriginalBERT`, its joint product taken apart.

What tells classes is a ``BertForSequenceClassification`` there, what tells words a ``BertForMaskedLM``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from thrifty.models.exchange.form import MAX_LAYERS, Arguments, Config, Form, Pair, layer

WORDS = "BertForMaskedLM"


def _arguments(config: Config) -> dict[str, Any]:
    width = config.count("hidden_size")
    config.only("intermediate_size", 4 * width)
    config.only("hidden_act", "gelu")
    config.only("layer_norm_eps", 1e-12)
    config.only("position_embedding_type", "absolute")
    config.only("type_vocab_size", 2)
    config.only("pad_token_id", 0)
    config.only("is_decoder", False)
    config.only("tie_word_embeddings", True)
    sizes = {
        "vocabulary": config.count("vocab_size"),
        "length": config.count("max_position_embeddings"),
        "layers": config.count("num_hidden_layers", most=MAX_LAYERS),
        "width": width,
        "heads": config.count("num_attention_heads"),
    }
    return sizes if config.values.get("architectures") == [WORDS] else {**sizes, "classes": config.classes()}


def _config(arguments: Arguments) -> dict[str, Any]:
    return {
        "vocab_size": arguments["vocabulary"],
        "max_position_embeddings": arguments["length"],
        "num_hidden_layers": arguments["layers"],
        "hidden_size": arguments["width"],
        "num_attention_heads": arguments["heads"],
        "intermediate_size": 4 * arguments["width"],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "pad_token_id": 0,
        "hidden_dropout_prob": arguments.get("dropout", 0.0),
        "attention_probs_dropout_prob": 0.0,
        **({} if "classes" in arguments else {"architectures": [WORDS]}),
    }


def _pairs(arguments: Arguments) -> Iterator[Pair]:
    width = arguments["width"]
    yield Pair("tokens.weight", ("bert.embeddings.word_embeddings.weight",))
    yield Pair("positions.weight", ("bert.embeddings.position_embeddings.weight",), cut=True)
    yield Pair("segments.weight", ("bert.embeddings.token_type_embeddings.weight",))
    yield from layer("norm_0", "bert.embeddings.LayerNorm")
    for n in range(arguments["layers"]):
        ours, theirs = f"blocks.{n}", f"bert.encoder.layer.{n}"
        for kind in ("weight", "bias"):
            qkv = tuple(f"{theirs}.attention.self.{each}.{kind}" for each in ("query", "key", "value"))
            yield Pair(f"{ours}.attention.qkv.{kind}", qkv, rows=(width, width, width))
        yield from layer(f"{ours}.attention.proj", f"{theirs}.attention.output.dense")
        yield from layer(f"{ours}.norm_1", f"{theirs}.attention.output.LayerNorm")
        yield from layer(f"{ours}.mlp.up", f"{theirs}.intermediate.dense")
        yield from layer(f"{ours}.mlp.proj", f"{theirs}.output.dense")
        yield from layer(f"{ours}.norm_2", f"{theirs}.output.LayerNorm")
    if "classes" not in arguments:
        yield from layer("words.dense", "cls.predictions.transform.dense")
        yield from layer("words.norm", "cls.predictions.transform.LayerNorm")
        yield Pair("words.bias", ("cls.predictions.bias",))
        return
    # what was trained on masked words alone has no pooler, and no classes but its own
    for each in (*layer("pooler", "bert.pooler.dense"), *layer("fc", "classifier")):
        yield replace(each, head=True)


BERT = Form(
    family="bert_original",
    architecture="BertForSequenceClassification",
    arguments=_arguments,
    config=_config,
    pairs=_pairs,
    inner="bert.",
    # as the authors' own checkpoints call them
    renamed=((".gamma", ".weight"), (".beta", ".bias")),
    spare=("bert.embeddings.position_ids", "bert.pooler.*", "classifier.*", "cls.*"),
)
