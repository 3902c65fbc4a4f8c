"""Copies of traced models on clusters: bounds are bounds, the batch is kept, pins and batch norm are told honestly."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from thrifty.cost import peak_bytes
from thrifty.cost.device_overhead import context_bytes
from thrifty.errors import JobError
from thrifty.hardware.cluster import catalogue_clusters, find_cluster
from thrifty.planner.cluster import Closed, work_of
from thrifty.planner.declared import declared_dataset
from thrifty.planner.learning import decide
from thrifty.planner.machines import survey
from thrifty.planner.propose import cluster_plan
from thrifty.planner.rules import Reasons
from thrifty.planner.search import search
from thrifty.planner.space import layout_of
from thrifty.planner.traced import Traced
from thrifty.spec import Declared, Job, Layout, parse_job
from thrifty.spec.proposal import Proposal

# each of them traces a real model
pytestmark = pytest.mark.slow

IMAGES = {"kind": "image", "images": 10**6, "classes": 100, "size": 32}
TEXT = {"kind": "language", "tokens": 10**7, "vocabulary": 500, "length": 64}


def job(model: str = "resnet20", batch: int = 256, data: dict[str, Any] = IMAGES, **changes: Any) -> Job:
    train = {"epochs": 2, "batch": batch}
    return parse_job({"name": "a", "data": data, "model": model, "train": train, **changes})


def declared(wanted: Job) -> Declared:
    assert isinstance(wanted.data, Declared)
    return wanted.data


def traced(wanted: Job, allowed: tuple[str, ...] = ()) -> Traced:
    dataset = declared_dataset(declared(wanted))
    return Traced(wanted, decide(wanted, dataset, Reasons([])), dataset, allowed)


def planned(wanted: Job, where: str, **options: Any) -> Proposal:
    return cluster_plan(wanted, declared_dataset(declared(wanted)), find_cluster(where), **options)


@pytest.fixture(scope="module")
def resnet() -> Traced:
    return traced(job())


@pytest.fixture(scope="module")
def gpt() -> Traced:
    return traced(job("gpt-nano", 64, TEXT))


@pytest.mark.parametrize("where", ["a100-80g:8x4", "v100-16g:1", "tpu-v5e:8", "xeon-ice-lake:1"])
@pytest.mark.parametrize("work", ["resnet", "gpt"])
def test_bounds_are_never_above_the_price(where: str, work: str, request: pytest.FixtureRequest) -> None:
    ground = request.getfixturevalue(work).ground(find_cluster(where))
    ways = list(ground.space.candidates())
    assert ways
    for settings in random.Random(0).sample(ways, min(200, len(ways))):
        price = ground.price(settings)
        for bound in ground.bounds:
            below = bound(settings)
            for name in ("usd", "seconds", "joules", "peak_bytes"):
                assert getattr(below, name) <= getattr(price, name) * (1 + 1e-9), (name, settings)


def test_bounds_change_no_choice(resnet: Traced) -> None:
    ground = resnet.ground(find_cluster("h100:8"))
    found = ground.search("usd", "seconds", "peak_bytes")
    every = search(
        ground.space, ground.price, limits=ground.limits, objectives=("usd", "seconds", "peak_bytes"), bounds=()
    )
    assert found.choice is not None and every.choice is not None
    assert found.choice.settings == every.choice.settings
    assert found.priced < every.priced


def test_every_way_computes_the_batch_on_all_devices(resnet: Traced) -> None:
    for settings in resnet.ground(find_cluster("a100-80g:8x4")).space.candidates():
        layout = layout_of(settings, 256)
        assert (layout.batch, layout.devices, layout.data) == (256, 32, 32)


def test_a_way_costs_what_its_trace_does(resnet: Traced) -> None:
    ground = resnet.ground(find_cluster("a100-80g"))
    way = {**next(ground.space.candidates()), "micro_batch": 64, "precision": "bf16", "memory_format": "channels_last"}
    price = ground.price(way)
    trace = resnet.trace("bf16", "none", 64)
    alone = peak_bytes(trace, accumulation=4, device_kind="cuda")
    context = context_bytes("cuda", Layout())
    # cuDNN's workspace is beside them
    assert 0 < price.peak_bytes - alone.value - context.value < 2**27
    cost = price.detail.cost
    flops = (trace.forward_flops + trace.backward_flops) * 4 * resnet.learning.stop.steps
    assert cost.flops.value == pytest.approx(flops)
    assert sum(price.detail.time_goes.values()) == pytest.approx(1)


def test_doubling_the_devices_doubles_neither_memory_nor_speed(resnet: Traced) -> None:
    prices = []
    for where in ("a100-80g:4", "a100-80g:8"):
        ground = resnet.ground(find_cluster(where))
        way = next(way for way in ground.space.candidates() if way["micro_batch"] == 32 and way["precision"] == "bf16")
        prices.append(ground.price(way))
    assert prices[1].seconds < prices[0].seconds < 2.2 * prices[1].seconds
    assert prices[1].peak_bytes == pytest.approx(prices[0].peak_bytes, rel=0.01)


def test_batch_norm_over_several_devices_is_priced_and_told() -> None:
    proposal = planned(job(), "a100-80g:8", what_if=False)
    assert proposal.chosen is not None
    assert proposal.time_goes["batch norm's messages"] > 0
    (said,) = [note for note in proposal.notes if "batch norm takes its statistics" in note]
    assert "over all 8 devices" in said and "change what is learned: not offered" in said
    once = planned(job(plan={"micro_batch": 64}), "a100-80g", what_if=False)
    assert any("64 samples computed at once, not of the step's 256" in note for note in once.notes)
    plain = planned(job("mlp-small"), "a100-80g:8", what_if=False)
    assert not any("batch norm" in note for note in plain.notes)
    assert "batch norm's messages" not in plain.time_goes


def test_a_batch_norm_is_never_given_one_sample(resnet: Traced) -> None:
    assert min(way["micro_batch"] for way in resnet.ground(find_cluster("h100")).space.candidates()) == 2
    assert min(way["micro_batch"] for way in resnet.ground(find_cluster("h100:2")).space.candidates()) == 1


def test_what_is_computed_again_takes_longer_and_holds_less(gpt: Traced) -> None:
    ground = gpt.ground(find_cluster("a100-80g:2"))
    plain = {**next(ground.space.candidates()), "precision": "bf16", "micro_batch": 32}
    prices = {how: ground.price({**plain, "checkpointing": how}) for how in ground.space.dimensions["checkpointing"]}
    assert list(prices) == ["none", "selective", "full"]
    assert prices["none"].peak_bytes > prices["selective"].peak_bytes > prices["full"].peak_bytes
    assert prices["none"].seconds < prices["full"].seconds
    own = {how: price.detail.cost.flops.value for how, price in prices.items()}
    assert own["full"] == own["none"], "what is computed again is not the model's own work"


def test_a_gpt_costs_about_what_its_closed_form_says() -> None:
    wanted = job("gpt2", 64, {**TEXT, "length": 1024, "vocabulary": 50257})
    dataset = declared_dataset(declared(wanted))
    learning = decide(wanted, dataset, Reasons([]))
    closed = work_of(wanted, learning, dataset)
    assert isinstance(closed, Closed)
    cluster = find_cluster("a100-80g:8")
    ways = {"precision": "bf16", "checkpointing": "none", "zero": 0, "micro_batch": 8, "data": 8}
    prices = []
    for work in (closed, Traced(wanted, learning, dataset)):
        ground = work.ground(cluster)
        (way,) = ground.restricted({**ways, "offload": False, "state_bytes": 4}).candidates()
        prices.append(ground.price(way))
    assert prices[1].seconds == pytest.approx(prices[0].seconds, rel=0.4)
    assert prices[1].peak_bytes == pytest.approx(prices[0].peak_bytes, rel=0.4)


def test_a_proposal_answers_what_a_reader_asks() -> None:
    proposal = planned(job("resnet18", 1024, {**IMAGES, "size": 224}), "a100-80g:8")
    assert proposal.chosen is not None
    assert proposal.chosen.settings["precision"] == "bf16"
    assert proposal.chosen.settings["memory_format"] == "channels_last"
    assert {row.number for row in proposal.limited_by} == {"arithmetic", "memory bandwidth", "memory", "network"}
    assert proposal.limited_by[0].number == "memory bandwidth"
    assert all(row.speedup >= 1 for row in proposal.limited_by)
    assert {"precision", "memory_format", "micro_batch", "zero"} <= {line.field for line in proposal.why}
    assert {"activations", "weights", "driver and libraries"} <= set(proposal.memory_holds)
    (usual,) = [offer for offer in proposal.offers if offer.mark == "usual"]
    assert usual.settings["memory_format"] == "contiguous"
    assert usual.cost.seconds.value > proposal.chosen.cost.seconds.value
    assert any("images a second" in note for note in proposal.notes)
    assert Proposal.model_validate_json(proposal.model_dump_json()) == proposal


def test_devices_that_do_not_pay_are_told() -> None:
    proposal = planned(job("resnet8", 64), "h100:8")
    (line,) = [line for line in proposal.cheaper_still if "less money" in line]
    assert line.startswith(("h100:1 ", "h100:2 "))
    assert any("waits for its host to launch" in note for note in proposal.notes)
    paying = planned(job("resnet50", 2048, {**IMAGES, "size": 224}), "a100-80g:8")
    assert not any("less money" in line for line in paying.cheaper_still)


def test_what_would_fit_is_said_when_nothing_does() -> None:
    proposal = planned(job("resnet18", 1024, {**IMAGES, "size": 224}, budget={"memory": "1.7GiB"}), "a100-80g:2")
    assert proposal.chosen is None
    assert "memory a device of" in proposal.would_fit[0]
    assert "instead of 1.7 GiB" in proposal.would_fit[0]


def test_old_devices_compute_in_fp16_and_processors_in_fp32(resnet: Traced) -> None:
    assert resnet.ground(find_cluster("t4:2")).space.dimensions["precision"] == ("fp32", "fp16")
    assert resnet.ground(find_cluster("xeon-broadwell:1")).space.dimensions["precision"] == ("fp32",)
    assert resnet.ground(find_cluster("tpu-v5e:8")).space.dimensions["memory_format"] == ("contiguous",)


PINS = [
    ("resnet20", 256, {"tensor": 8}, "plan.tensor is 8, but resnet20 has no closed form by which it could be cut"),
    ("resnet20", 256, {"pipeline": 2}, "plan.pipeline is 2"),
    ("resnet20", 256, {"context": 2}, "plan.context is 2"),
    ("resnet20", 256, {"data": 4}, "plan.data is 4, but each of the 8 devices has its copy of resnet20"),
    ("resnet20", 256, {"checkpointing": "full"}, "resnet20 has batch norm"),
    ("mlp-small", 256, {"checkpointing": "selective"}, "mlp-small has no repeated blocks to compute again"),
    ("resnet20", 256, {"micro_batch": 5}, "These would do: 1, 2, 4, 8, 16, 32"),
    ("resnet20", 256, {"precision": "fp8"}, "must be allowed by name"),
    ("resnet20", 100, {}, "a batch of 100 cannot be cut into equal parts for 8 devices (h100:8). train.batch 104"),
    ("resnet20", 100, {"data": 8}, "plan.data is 8, but data divides the batch of 100"),
]


@pytest.mark.parametrize(("model", "batch", "pins", "said"), PINS, ids=[f"{row[0]}-{row[2]}" for row in PINS])
def test_pins_that_a_copy_does_not_bear_are_told(model: str, batch: int, pins: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError) as caught:
        planned(job(model, batch, plan=pins), "h100:8")
    assert said in str(caught.value)


def test_pins_are_kept() -> None:
    pins = {"micro_batch": 8, "memory_format": "contiguous", "zero": 2, "precision": "fp32"}
    proposal = planned(job(plan=pins), "h100:8", what_if=False)
    assert proposal.chosen is not None
    assert {name: proposal.chosen.settings[name] for name in pins} == pins
    assert {line.field for line in proposal.why if line.reason == "asked for in the job"} >= set(pins)


@pytest.mark.parametrize("move", ["fp8", "bf16-weights"])
def test_moves_that_no_trace_prices_are_told(move: str) -> None:
    with pytest.raises(JobError, match=f"move '{move}' has no price for resnet20"):
        planned(job(), "h100:8", allowed=(move,))


def test_small_states_may_be_allowed() -> None:
    plain, small = (planned(job("mlp-large"), "h100:1", what_if=False, allowed=a) for a in ((), ("8bit-states",)))
    assert plain.chosen is not None and small.chosen is not None
    assert small.chosen.settings["state_bytes"] == 1
    assert small.chosen.cost.seconds.value <= plain.chosen.cost.seconds.value * 1.01


@pytest.mark.alone
def test_the_whole_catalogue_within_a_quarter_of_a_minute() -> None:
    wanted = job("resnet18", 256, {**IMAGES, "size": 224})
    proposal = survey(wanted, declared_dataset(declared(wanted)), catalogue_clusters())
    assert proposal.planning_seconds < 15
    assert not proposal.notes, "every device of the catalogue has a price"
    front = [row for row in proposal.machines if row.on_front]
    seconds = [row.offer.cost.seconds.value for row in front]
    assert seconds == sorted(seconds, reverse=True)
    assert {row.device for row in proposal.machines} == {node.device.name for node in catalogue_clusters()}
    assert any(row.devices > 1 for row in proposal.machines)
    assert any(line.startswith("in between, ") for line in proposal.cheaper_still)
    assert all(math.isfinite(row.offer.cost.seconds.value) for row in proposal.machines)
