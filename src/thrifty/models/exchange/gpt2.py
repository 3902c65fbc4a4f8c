"""GPT-2 as transformers has it: `thrifty.models.gpt.GPT` tensor by tensor, its matrices with inputs first (Conv1D)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from thrifty.models.exchange.form import MAX_LAYERS, Arguments, Config, Form, Pair, layer


def _arguments(config: Config) -> dict[str, Any]:
    width = config.count("n_embd")
    config.only("activation_function", "gelu_new", "gelu_pytorch_tanh")
    config.only("n_inner", 4 * width)
    config.only("layer_norm_epsilon", 1e-5)
    config.only("tie_word_embeddings", True)
    config.only("scale_attn_weights", True)
    config.only("scale_attn_by_inverse_layer_idx", False)
    config.only("add_cross_attention", False)
    return {
        "vocabulary": config.count("vocab_size"),
        "length": config.count("n_positions"),
        "layers": config.count("n_layer", most=MAX_LAYERS),
        "width": width,
        "heads": config.count("n_head"),
    }


def _config(arguments: Arguments) -> dict[str, Any]:
    return {
        "vocab_size": arguments["vocabulary"],
        "n_positions": arguments["length"],
        "n_layer": arguments["layers"],
        "n_embd": arguments["width"],
        "n_head": arguments["heads"],
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "embd_pdrop": arguments.get("dropout", 0.0),
        "resid_pdrop": arguments.get("dropout", 0.0),
        "attn_pdrop": 0.0,
    }


def _pairs(arguments: Arguments) -> Iterator[Pair]:
    yield Pair("wte.weight", ("transformer.wte.weight",))
    yield Pair("wpe.weight", ("transformer.wpe.weight",), cut=True)
    for n in range(arguments["layers"]):
        for norm in ("ln_1", "ln_2"):
            yield from layer(f"h.{n}.{norm}", f"transformer.h.{n}.{norm}")
        for product in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            yield from layer(f"h.{n}.{product}", f"transformer.h.{n}.{product}", transposed=True)
    yield from layer("ln_f", "transformer.ln_f")


GPT2 = Form(
    family="gpt",
    architecture="GPT2LMHeadModel",
    arguments=_arguments,
    config=_config,
    pairs=_pairs,
    inner="transformer.",
    # masks that older ones kept, and the head, which is the embedding
    spare=("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias", "lm_head.weight"),
)
