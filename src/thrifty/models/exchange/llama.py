"""Llama as transformers has it: `thrifty.models.llama.Llama` tensor by tensor, its joint products taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from thrifty.models.exchange.form import MAX_LAYERS, Arguments, Config, Form, Pair

THETA = 10_000.0
_SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def _arguments(config: Config) -> dict[str, Any]:
    width, heads = config.count("hidden_size"), config.count("num_attention_heads")
    config.only("hidden_act", "silu")
    config.only("attention_bias", False)
    config.only("mlp_bias", False)
    config.only("head_dim", width // heads)
    theta, scaling = _rotation(config)
    return {
        "vocabulary": config.count("vocab_size"),
        "length": config.count("max_position_embeddings"),
        "layers": config.count("num_hidden_layers", most=MAX_LAYERS),
        "width": width,
        "heads": heads,
        "kv_heads": config.count("num_key_value_heads", heads),
        "ffn": config.count("intermediate_size"),
        "tied": config.flag("tie_word_embeddings", False),
        "theta": theta,
        "scaling": scaling,
        "eps": config.number("rms_norm_eps"),
    }


def _rotation(config: Config) -> tuple[float, list[float]]:
    """Theta and scaling: in ``rope_parameters`` since transformers 5, before it in two keys."""
    found = config.values.get("rope_parameters") or config.values.get("rope_scaling") or {}
    rope = Config(found if isinstance(found, dict) else {}, f"{config.place}: rope_parameters")
    theta = rope.number("rope_theta", config.number("rope_theta", THETA))
    kind = rope.only("rope_type", "default", "llama3")
    return theta, [] if kind == "default" else [rope.number(key) for key in _SCALING]


def _config(arguments: Arguments) -> dict[str, Any]:
    scaling = arguments.get("scaling", ())
    kind = {"rope_type": "llama3", **dict(zip(_SCALING, scaling, strict=True))} if scaling else {"rope_type": "default"}
    return {
        "vocab_size": arguments["vocabulary"],
        "max_position_embeddings": arguments["length"],
        "num_hidden_layers": arguments["layers"],
        "hidden_size": arguments["width"],
        "num_attention_heads": arguments["heads"],
        "num_key_value_heads": arguments["kv_heads"],
        "head_dim": arguments["width"] // arguments["heads"],
        "intermediate_size": arguments["ffn"],
        "tie_word_embeddings": arguments["tied"],
        "rope_parameters": {**kind, "rope_theta": arguments.get("theta", THETA)},
        "rms_norm_eps": arguments.get("eps", 1e-5),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def _pairs(arguments: Arguments) -> Iterator[Pair]:
    width, ffn = arguments["width"], arguments["ffn"]
    keys = width // arguments["heads"] * arguments["kv_heads"]
    yield Pair("tokens.weight", ("model.embed_tokens.weight",))
    for n in range(arguments["layers"]):
        ours, theirs = f"blocks.{n}", f"model.layers.{n}"
        yield Pair(f"{ours}.norm_1.weight", (f"{theirs}.input_layernorm.weight",))
        yield Pair(f"{ours}.norm_2.weight", (f"{theirs}.post_attention_layernorm.weight",))
        qkv = tuple(f"{theirs}.self_attn.{each}_proj.weight" for each in "qkv")
        yield Pair(f"{ours}.attention.qkv.weight", qkv, rows=(width, keys, keys))
        yield Pair(f"{ours}.attention.proj.weight", (f"{theirs}.self_attn.o_proj.weight",))
        gate_up = tuple(f"{theirs}.mlp.{each}_proj.weight" for each in ("gate", "up"))
        yield Pair(f"{ours}.mlp.gate_up.weight", gate_up, rows=(ffn, ffn))
        yield Pair(f"{ours}.mlp.proj.weight", (f"{theirs}.mlp.down_proj.weight",))
    yield Pair("norm.weight", ("model.norm.weight",))
    if not arguments["tied"]:
        yield Pair("head.weight", ("lm_head.weight",))


LLAMA = Form(
    family="llama",
    architecture="LlamaForCausalLM",
    arguments=_arguments,
    config=_config,
    pairs=_pairs,
    inner="model.",
    spare=("model.layers.*.self_attn.rotary_emb.inv_freq", "lm_head.weight"),
)
