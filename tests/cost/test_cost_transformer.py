"""Kernels of a Transformer against closed forms, against a trace of our own GPT, and how layouts share them out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost import trace_step
from thrifty.cost.transformer import (
    DENSE_AGAIN,
    DENSE_BACKWARD,
    DENSE_FORWARD,
    ENDS_BACKWARD,
    ENDS_FORWARD,
    MIXTURE_FORWARD,
    Spread,
    micro_batch_kernels,
    mixture_parameters,
    model_flops,
    parameters,
)
from thrifty.models.gpt import GPT
from thrifty.models.losses import cross_entropy
from thrifty.spec import TransformerShape

SMALL = TransformerShape(
    layers=4, hidden=256, heads=8, kv_heads=8, head_dim=32, ffn=1024, vocabulary=512, length=128, causal=True
)
LLAMA = TransformerShape(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, vocabulary=128256, length=8192, gated=True,
    learned_positions=False, biases=False, tied=False,
)  # fmt: skip
MIXTRAL = LLAMA.model_copy(
    update={"vocabulary": 32000, "experts": 8, "active_experts": 2, "expert_ffn": 14336, "length": 4096}
)


def spread(**more: object) -> Spread:
    plain: dict[str, object] = {
        "tensor": 1, "context": 1, "expert": 1, "sequence_parallel": False, "micro_batch": 1, "checkpointing": "none",
        "flash": True, "precision": "bf16",
    }  # fmt: skip
    return Spread(**{**plain, **more})  # type: ignore[arg-type]


def test_parameters_of_public_models() -> None:
    dense, experts, ends = parameters(LLAMA)
    assert 32 * dense + ends == pytest.approx(8.03e9, rel=0.001)
    _, experts, ends = parameters(MIXTRAL)
    assert 32 * (experts + mixture_parameters(MIXTRAL)) + ends == pytest.approx(46.7e9, rel=0.002)


@pytest.mark.parametrize("shape", [SMALL, LLAMA])
def test_flops_are_six_a_parameter_and_attention(shape: TransformerShape) -> None:
    dense, _, _ = parameters(shape)
    products = shape.layers * dense + shape.vocabulary * shape.hidden
    # fused: causal half of 4 T S forward, 2.5 times that backward
    attention = 7 * shape.layers * shape.length * shape.heads * shape.head_dim
    assert model_flops(shape) == pytest.approx(6 * products + attention, rel=0.01)


def test_flops_are_those_of_the_traced_gpt() -> None:
    trace = trace_step(
        lambda: GPT(vocabulary=512, length=128, layers=4, width=256, heads=8),
        cross_entropy,
        {"x": ((2, 128), "int64"), "y": ((2, 128), "int64")},
        precision="bf16",
        optimizer=lambda model: torch.optim.AdamW(model.parameters()),
    )
    flops = micro_batch_kernels(SMALL.model_copy(update={"causal": False}), spread(micro_batch=2)).segment_flops
    assert 4 * flops[DENSE_FORWARD] + flops[ENDS_FORWARD] == pytest.approx(trace.forward_flops, rel=0.03)
    assert 4 * flops[DENSE_BACKWARD] + flops[ENDS_BACKWARD] == pytest.approx(trace.backward_flops, rel=0.03)


def test_full_recomputation_repeats_the_forward_pass_and_selective_its_attention() -> None:
    full = micro_batch_kernels(LLAMA, spread(checkpointing="full")).segment_flops
    assert full[DENSE_AGAIN] == full[DENSE_FORWARD]
    selective = micro_batch_kernels(LLAMA, spread(checkpointing="selective")).segment_flops
    assert selective[DENSE_AGAIN] == 2 * LLAMA.length**2 * LLAMA.heads * LLAMA.head_dim


@given(tensor=st.sampled_from([1, 2, 4, 8]), context=st.sampled_from([1, 2, 4]), flash=st.booleans())
def test_degrees_share_the_arithmetic_out_evenly(tensor: int, context: int, flash: bool) -> None:
    whole = micro_batch_kernels(LLAMA, spread(flash=flash)).segment_flops
    part = micro_batch_kernels(LLAMA, spread(tensor=tensor, context=context, flash=flash)).segment_flops
    assert part * tensor * context == pytest.approx(whole, rel=1e-9)


def test_experts_cost_what_the_chosen_ones_compute() -> None:
    one = micro_batch_kernels(MIXTRAL, spread()).segment_flops[MIXTURE_FORWARD]
    more = MIXTRAL.model_copy(update={"active_experts": 3})
    added = micro_batch_kernels(more, spread()).segment_flops[MIXTURE_FORWARD] - one
    assert added == pytest.approx(2 * 4096 * 3 * 4096 * 14336, rel=0.01)
    shared_out = micro_batch_kernels(MIXTRAL, spread(expert=8)).segment_flops[MIXTURE_FORWARD]
    assert shared_out == pytest.approx(one, rel=1e-9)  # as many tokens come as go


def test_a_classifier_has_no_logits() -> None:
    flops = micro_batch_kernels(SMALL, spread(logits=False)).segment_flops
    assert flops[ENDS_FORWARD] == flops[ENDS_BACKWARD] == 0
