"""Steps on clusters: their terms, what each degree does to them, errors, doubts, and how fast they are priced."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost.calibrations import shipped_calibrations
from thrifty.cost.choose import calibration_for
from thrifty.cost.cluster import step_breakdown, step_cost
from thrifty.errors import JobError
from thrifty.hardware.cluster import catalogue_devices, find_cluster
from thrifty.spec import Layout, TransformerShape

GPT3 = TransformerShape(
    layers=96, hidden=12288, heads=96, kv_heads=96, head_dim=128, ffn=49152, vocabulary=51200, length=2048
)
LLAMA = TransformerShape(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, ffn=14336, vocabulary=128256, length=8192, gated=True,
    learned_positions=False, biases=False, tied=False,
)  # fmt: skip
PLAN = Layout(
    data=8, tensor=8, pipeline=16, micro_batch=1, accumulation=192, precision="fp16", checkpointing="full", flash=False
)  # fmt: skip
SELENE = find_cluster("a100-80g:8x128")
A100 = shipped_calibrations()["a100 / megatron 2021-04"]


def test_gpt3_takes_about_as_long_as_published() -> None:
    step = step_cost(GPT3, PLAN, SELENE, calibration=A100)
    days = 300e9 / (1536 * 2048) * step.seconds.value / 86400
    assert days == pytest.approx(34, rel=0.1)
    assert step.seconds.value == pytest.approx(step.breakdown.seconds)
    assert step.seconds.low < step.seconds.value < step.seconds.high


def test_the_bubble_is_that_of_the_schedule() -> None:
    plain = step_breakdown(GPT3, PLAN, SELENE, A100)
    interleaved = step_breakdown(GPT3, PLAN.model_copy(update={"virtual_stages": 3}), SELENE, A100)
    assert interleaved.bubble == pytest.approx(plain.bubble / 3)
    assert interleaved.pipeline > plain.pipeline
    busy = plain.matmul + plain.other + plain.launch + plain.tensor
    assert plain.bubble / busy == pytest.approx(15 / 192, rel=0.2)  # the head is on one stage alone


def test_recomputation_costs_a_third() -> None:
    full = step_breakdown(GPT3, PLAN, SELENE, A100)
    none = step_breakdown(GPT3, PLAN.model_copy(update={"checkpointing": "none"}), SELENE, A100)
    assert full.matmul / none.matmul == pytest.approx(4 / 3, rel=0.05)


@given(micro=st.sampled_from([1, 2, 4, 8]), zero=st.sampled_from([0, 1, 2, 3]), data=st.sampled_from([1, 2, 8, 16]))
def test_terms_are_never_negative(micro: int, zero: int, data: int) -> None:
    layout = Layout(data=data, micro_batch=micro, accumulation=2, zero=zero)  # type: ignore[arg-type]
    step = step_breakdown(LLAMA, layout, find_cluster("h100:8x2"), calibration_for(find_cluster("h100:8").device))
    assert all(value >= 0 for value in vars(step).values())
    assert (step.data > 0) == (data > 1)


def test_tensor_parallelism_across_nodes_is_dear() -> None:
    cluster = find_cluster("a100-80g:8x2")
    inside = step_breakdown(GPT3, Layout(tensor=8, data=2, precision="fp16"), cluster, A100)
    across = step_breakdown(GPT3, Layout(tensor=16, precision="fp16"), cluster, A100)
    assert across.tensor > 1.5 * inside.tensor


def test_experts_exchange_tokens() -> None:
    mixture = LLAMA.model_copy(update={"experts": 8, "active_experts": 2, "expert_ffn": 14336})
    cluster = find_cluster("h100:8")
    apart = step_cost(mixture, Layout(data=8, expert=8), cluster)
    assert apart.breakdown.expert > 0
    with pytest.raises(JobError, match="8 experts cannot be shared by expert 3"):
        step_cost(mixture, Layout(data=3, expert=3), cluster)


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (Layout(data=16), "the layout needs 16 devices, h100:8 has 8"),
        (Layout(tensor=3), "32 heads cannot be shared by tensor 3"),
        (Layout(pipeline=8, virtual_stages=8), "32 layers are fewer than pipeline 8 x virtual_stages 8"),
    ],
)
def test_degrees_that_do_not_divide(layout: Layout, says: str) -> None:
    with pytest.raises(JobError, match=says):
        step_cost(LLAMA, layout, find_cluster("h100:8"))


def test_doubts_widen_the_interval() -> None:
    known = step_cost(GPT3, PLAN, SELENE, calibration=A100)
    strange = step_cost(
        GPT3.model_copy(update={"length": 65536}), PLAN.model_copy(update={"micro_batch": 2}), SELENE, calibration=A100
    )
    assert not known.doubts
    assert any("length 65536 lies outside" in doubt for doubt in strange.doubts)
    assert strange.seconds.high / strange.seconds.value > known.seconds.high / known.seconds.value
    assert "outside" in strange.seconds.method


def test_every_device_of_the_catalogue_has_a_calibration() -> None:
    families = {device.calibration for device in catalogue_devices()}
    missing = {family for family in families if f"{family} / default" not in shipped_calibrations()}
    assert not missing


def test_calibrations_say_where_they_come_from() -> None:
    for calibration in shipped_calibrations().values():
        assert calibration.source
        assert bool(calibration.fitted) == bool(calibration.covers)
        assert 0.02 < calibration.spread < 1
        for share in ("matmul", "memory", "attention", "intra", "inter", "data_overlap", "tensor_overlap"):
            assert 0 <= getattr(calibration, share) < 1, (calibration.name, share)


@pytest.mark.alone
def test_pricing_is_fast_once_kernels_are_known() -> None:
    layouts = [PLAN.model_copy(update={"accumulation": m}) for m in range(1, 400)]
    step_cost(GPT3, layouts[0], SELENE, calibration=A100)
    start = time.perf_counter()
    for layout in layouts:
        step_cost(GPT3, layout, SELENE, calibration=A100)
    assert (time.perf_counter() - start) / len(layouts) < 1e-3
