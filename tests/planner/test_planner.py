"""The planner: every decision has a reason, names are checked, budgets cut or refuse."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from thrifty.data import Store, prepare
from thrifty.errors import BudgetError, JobError
from thrifty.optim import OPTIMIZERS
from thrifty.planner import plan
from thrifty.planner.planner import fastest_of
from thrifty.spec import BF16_HELD, Device, Job, Plan, Probed, Quantity, Spent, parse_job

# each plan traces a real model
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_dry_run")]

STEADY = Probed(step_s=(0.1, 0.1, 0.11), save_s=0.0)


@pytest.fixture(scope="module")
def images(digits: Path, own_cache: Path) -> Store:
    job = parse_job({"name": "a", "data": {"kind": "image", "path": str(digits), "size": 16}, "model": "resnet8"})
    return prepare(job.data, seed=0, cache=own_cache, emit=lambda event: None)


def device(bf16_gain: float = 4.0, memory_bytes: int = 8 * 2**30) -> Device:
    def q(value: float) -> Quantity:
        return Quantity(value=value, source="made for a test")

    return Device(
        name="test", kind="cpu", cores=2, isa=("avx2",), cache_bytes={"L3": 2**25}, memory_bytes=memory_bytes,
        memory_source="test", flops_per_second={"fp32": q(1e11), "bf16": q(1e11 * bf16_gain)}, bytes_per_second=q(2e10),
        datasheet_flops_per_second={}, datasheet_bytes_per_second={}, idle_watts=q(10), busy_watts=q(50),
        usd_per_hour=q(0.1), measured_on="2026-11-23",
    )  # fmt: skip


def job(**changes: Any) -> Job:
    values = {"name": "a", "data": {"kind": "image", "path": "x", "size": 16}, "model": "resnet8", **changes}
    return parse_job(values)


def decide(images: Store, wanted: Job, **options: Any) -> Plan:
    options = {"device": device(), "spent": Spent(wall_s=2.0), **options}
    where = options.pop("device")
    return plan(wanted, images.dataset, where, key="k", **options)


def reason(decided: Plan, field: str) -> str:
    (line,) = [line for line in decided.why if line.field == field]
    return line.reason


def test_every_decision_has_one_reason(images: Store) -> None:
    decided = decide(images, job())
    fields = [line.field for line in decided.why]
    assert len(fields) == len(set(fields))
    needed = {"model", "init", "optimizer", "precision", "memory_format", "threads", "batch", "micro_batch", "schedule"}
    needed |= {"checkpointing"}
    needed |= {"learning_rate", "weight_decay", "clip", "warmup", "momentum", "epochs", "steps", "evaluate_every"}
    assert needed <= set(fields)
    assert all(line.reason and line.value for line in decided.why)


def test_a_plan_survives_json_and_holds_no_none(images: Store) -> None:
    decided = decide(images, job())
    assert Plan.model_validate_json(decided.model_dump_json()) == decided
    assert "null" not in decided.model_dump_json()


@pytest.mark.parametrize(("gain", "chosen"), [(4.0, "bf16"), (1.0, "fp32"), (0.3, "fp32")])
def test_precision_is_chosen_by_measurement(gain: float, chosen: str, images: Store) -> None:
    decided = decide(images, job(), device=device(bf16_gain=gain))
    assert decided.precision == chosen
    assert f"{gain:.1f}x fp32" in reason(decided, "precision")


def test_pins_are_kept(images: Store) -> None:
    pins = {"precision": "fp32", "micro_batch": 5, "memory_format": "contiguous", "threads": 1}
    decided = decide(images, job(plan=pins, train={"batch": 32}))
    assert (decided.precision, decided.memory_format, decided.threads) == ("fp32", "contiguous", 1)
    assert (decided.batch.micro, decided.batch.accumulation, decided.batch.size) == (5, 7, 32)
    assert reason(decided, "precision") == "asked for in the job"


@pytest.mark.parametrize("precision", BF16_HELD)
def test_weights_in_bf16_are_taken_where_they_are_asked_for(precision: str, images: Store) -> None:
    decided = decide(images, job(model="mlp-small", plan={"precision": precision}))
    assert decided.precision == precision
    (line,) = [line for line in decided.why if line.field == "precision"]
    assert (line.source, line.reason) == ("job", "asked for in the job")
    assert line.doubt == ""


def test_a_precision_that_the_device_has_not_is_refused(images: Store) -> None:
    for precision in ("fp16", "fp8"):
        with pytest.raises(JobError, match="It runs: fp32, bf16, bf16_compensated, bf16_stochastic"):
            decide(images, job(plan={"precision": precision}))


@pytest.mark.parametrize("model", ["mlp-small", "resnet8"])
def test_models_without_repeated_blocks_have_one_way_and_say_so(model: str, images: Store) -> None:
    decided = decide(images, job(model=model))
    assert decided.checkpointing == "none"
    assert reason(decided, "checkpointing") == "the model has no repeated blocks to compute again"
    assert decide(images, job(model=model, plan={"checkpointing": "none"})).checkpointing == "none"
    with pytest.raises(JobError, match=rf"plan.checkpointing is 'full', and model '{model}' has no repeated blocks"):
        decide(images, job(model=model, plan={"checkpointing": "full"}))


def test_without_memory_for_a_copy_training_waits_while_it_is_saved(images: Store) -> None:
    roomy = decide(images, job(plan={"micro_batch": 8}))
    assert roomy.saving == "beside" and "a copy that is being saved" in roomy.cost.peak_bytes.method
    limit = int(roomy.cost.peak_bytes.high) - 1000
    tight = decide(images, job(plan={"micro_batch": 8}, budget={"memory": f"{limit}B"}))
    assert (tight.saving, tight.batch) == ("between", roomy.batch)
    assert tight.cost.peak_bytes.high < limit
    assert "a copy of the state beside training does not fit the budget" in reason(tight, "saving")


def test_a_small_memory_cuts_the_micro_batch_and_never_the_batch(images: Store) -> None:
    wide = decide(images, job(model="resnet20", train={"batch": 256}))
    least = decide(images, job(model="resnet20", train={"batch": 256}, plan={"micro_batch": 1})).cost.peak_bytes.high
    limit = int(least + (wide.cost.peak_bytes.high - least) * 0.4)
    tight = decide(images, job(model="resnet20", train={"batch": 256}, budget={"memory": f"{limit}B"}))
    assert tight.batch.size == wide.batch.size == 256
    assert 1 <= tight.batch.micro < wide.batch.micro
    assert tight.cost.peak_bytes.high <= limit
    assert tight.optim == wide.optim


def test_a_time_budget_cuts_the_steps_and_the_schedule_with_them(images: Store) -> None:
    train = {"epochs": 100, "schedule": "wsd"}
    free = decide(images, job(train=train), probe=lambda draft: STEADY)
    cut = decide(images, job(train=train, budget={"time": "150s"}), probe=lambda draft: STEADY)
    assert cut.stop.steps < free.stop.steps
    assert cut.optim.total_steps == cut.stop.steps
    assert cut.optim.warmup_steps == pytest.approx(free.optim.warmup_steps * cut.stop.steps / free.stop.steps, abs=1)
    assert cut.optim.cooldown_steps == pytest.approx(cut.stop.steps / 5, abs=1)
    assert cut.cost.seconds.value < 150 - 2
    assert f"{free.stop.steps:,} were wanted" in reason(cut, "steps")


@pytest.mark.parametrize("budget", [{"time": "3s"}, {"energy": "20J"}, {"money": "0.00001USD"}])
def test_a_budget_that_holds_nothing_is_refused_with_what_would_do(budget: dict[str, str], images: Store) -> None:
    with pytest.raises(BudgetError, match=r"is too small to run anything: .* went into preparing.*at least"):
        decide(images, job(budget=budget))


def test_the_least_that_is_named_is_enough(images: Store) -> None:
    with pytest.raises(BudgetError) as caught:
        decide(images, job(budget={"time": "3s"}), probe=lambda draft: STEADY)
    least = float(caught.value.mend.split("at least ")[1].split(" s")[0])
    # planning counts, and takes longer at times
    assert decide(images, job(budget={"time": f"{least + 30}s"}), probe=lambda draft: STEADY).stop.steps >= 1


def test_what_planning_takes_is_taken_off_the_budget(images: Store) -> None:
    """A probe that takes two seconds leaves so much less for training."""

    def slow(draft: Plan) -> Probed:
        time.sleep(2.0)
        return STEADY

    wanted = job(train={"epochs": 100}, budget={"time": "60s"})
    plans = [decide(images, wanted, spent=Spent(wall_s=0.0), probe=probe) for probe in (lambda draft: STEADY, slow)]
    saved = plans[0].cost.seconds.value - plans[1].cost.seconds.value
    assert saved > 1.0
    before = decide(images, wanted, spent=Spent(wall_s=30.0), probe=lambda draft: STEADY)
    assert plans[0].cost.seconds.value - before.cost.seconds.value == pytest.approx(30 * 0.9, abs=5)


def test_a_budget_too_short_to_finish_in_is_refused_before_anything_is_probed(images: Store) -> None:
    def never(draft: Plan) -> Probed:
        raise AssertionError("it was probed")

    with pytest.raises(BudgetError, match=r"2\.0 s went into preparing and planning, and finishing takes 3\.0 s"):
        decide(images, job(budget={"time": "4s"}), probe=never)
    # 100 s are left, and seven steps of such a network take as good as nothing; of one that takes an hour they do not
    slow = device().model_copy(update={"flops_per_second": device(1.0, 1).flops_per_second})
    slow = slow.model_copy(
        update={"flops_per_second": {n: r.model_copy(update={"value": 1e7}) for n, r in slow.flops_per_second.items()}}
    )
    with pytest.raises(BudgetError, match="a step takes"):
        decide(images, job(budget={"time": "100s"}), device=slow, probe=never)


@pytest.mark.parametrize("budget", [{"time": "100s"}, {"energy": "4kJ"}, {"money": "0.003USD"}])
def test_training_is_told_to_end_while_there_is_time_to_validate_save_and_finish(
    budget: dict[str, str], images: Store
) -> None:
    probed = Probed(step_s=(0.1, 0.1, 0.1), save_s=1.0)
    decided = decide(images, job(train={"epochs": 1000}, budget=budget), probe=lambda draft: probed)
    per_step, validated = 0.1, 1.0
    # three seconds to finish, and the weights are kept three times: best, last, and in the bundle
    least_s = 3.0 + 2 * 1.0 + per_step + validated
    asked = job(budget=budget).budget
    kept = [
        (asked.time, decided.stop.seconds, 1.0),
        (asked.energy, decided.stop.joules, 50.0),
        (asked.money, decided.stop.usd, 0.1 / 3600),
    ]
    for limit, stop, a_second in kept:
        if limit is None:
            assert stop == math.inf
        else:
            assert least_s <= (limit - stop) / a_second < least_s + 2.0


JOBS: list[tuple[dict[str, Any], str, str]] = [
    ({"epochs": 20}, "", "its steps alone end the run"),
    ({"epochs": 20}, "target", "fewer would train longer past the target"),
    ({"epochs": 20, "patience": 2}, "", "patience of 2"),
    ({"epochs": 20, "evaluations": 7}, "target", "train.evaluations asks for 7"),
    ({"steps": 300, "schedule": "plateau"}, "", "the plateau schedule counts validations"),
    ({"steps": 5}, "", "its steps alone end the run"),
]


@pytest.mark.parametrize(("train", "target", "says"), JOBS, ids=[row[2] for row in JOBS])
def test_the_interval_is_priced_and_the_bill_has_as_many_validations(
    train: dict[str, Any], target: str, says: str, images: Store
) -> None:
    probed = Probed(step_s=(0.1, 0.1, 0.1), save_s=0.2)
    wanted = job(train=train, **({"target": {"accuracy": 0.9}} if target else {}))
    decided = decide(images, wanted, probe=lambda draft: probed)
    (line,) = [line for line in decided.why if line.field == "evaluate_every"]
    assert says in line.reason and line.value == str(decided.evaluate_every)
    assert line.source == ("job" if "evaluations" in train else "probe")
    count = math.ceil(decided.stop.steps / decided.evaluate_every)
    assert f"; {count} validations of" in decided.cost.seconds.method
    # as the reason has it: what they take, of training
    share = float(line.reason.split(" of them take ")[1].split(" %")[0]) / 100
    trained_s = decided.stop.steps * 0.1
    assert (decided.cost.seconds.value - trained_s) / trained_s == pytest.approx(share, abs=0.001)


NAMES = [
    ({"model": "resnet9"}, "unknown model 'resnet9'"),
    ({"train": {"optimizer": "sdg"}}, "unknown optimizer 'sdg'. Did you mean 'sgd'?"),
    ({"train": {"schedule": "cosinus"}}, "unknown schedule 'cosinus'. Did you mean 'cosine'?"),
    ({"train": {"init": "xavier"}}, "unknown initialiser 'xavier'"),
]


@pytest.mark.parametrize(("changes", "said"), NAMES, ids=[row[1] for row in NAMES])
def test_unknown_names_are_told(changes: dict[str, Any], said: str, images: Store) -> None:
    with pytest.raises(JobError) as caught:
        decide(images, job(**changes))
    assert said in str(caught.value)


def test_gradient_descent_takes_the_whole_split(images: Store) -> None:
    decided = decide(images, job(train={"optimizer": "gd"}))
    assert decided.batch.size == images.dataset.counts["train"]
    assert (decided.optim.schedule, decided.optim.steps_per_epoch, decided.optim.warmup_steps) == ("fixed", 1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_priced(name: str, images: Store) -> None:
    decided = decide(images, job(model="mlp-small", train={"optimizer": name}))
    assert decided.optim.optimizer == name
    assert decided.cost.seconds.value > 0 and decided.cost.peak_bytes.value > 0


def test_a_batch_larger_than_the_data_is_cut_and_told(images: Store) -> None:
    decided = decide(images, job(train={"batch": 10**6}))
    assert decided.batch.size == images.dataset.counts["train"]
    assert "no more training samples" in reason(decided, "batch")


def test_no_sample_is_left_alone_with_batch_norm(images: Store) -> None:
    samples = images.dataset.counts["train"]
    lonely = next(size for size in range(2, samples) if samples % size == 1)
    with pytest.raises(JobError, match=rf"train.batch {lonely} leaves a lone sample.*Make it {lonely - 1} or"):
        decide(images, job(train={"batch": lonely}))
    assert decide(images, job(model="mlp-small", train={"batch": lonely})).batch.size == lonely


def test_a_target_is_watched_in_its_direction(images: Store) -> None:
    stop = decide(images, job(target={"loss": 0.2})).stop
    assert (stop.metric, stop.target, stop.higher_is_better) == ("loss", 0.2, False)
    assert decide(images, job()).stop.target == math.inf


@pytest.mark.parametrize(
    ("seconds", "wanted", "asked"),
    [
        ({"a": [1.0], "b": [2.0]}, "a", "ab"),
        ({"a": [3.0, 1.0], "b": [2.0]}, "a", "aba"),
        ({"a": [3.0, 2.5], "b": [2.0], "c": [2.2]}, "b", "abca"),
        ({"a": [1.0]}, "a", "a"),
    ],
    ids=["the first is fastest", "the first was slow by chance", "another is faster", "there is but one"],
)
def test_a_way_that_loses_its_probe_is_probed_again(seconds: dict[str, list[float]], wanted: str, asked: str) -> None:
    left = {name: list(times) for name, times in seconds.items()}
    order: list[str] = []

    def probe(draft: Any) -> Probed:
        order.append(draft)
        return Probed(step_s=(left[draft].pop(0),), save_s=0.0)

    names: Any = list(seconds)
    at, probed = fastest_of(names, probe)
    assert names[at] == wanted
    assert probed.step_s[0] == min(seconds[wanted])
    assert "".join(order) == asked
