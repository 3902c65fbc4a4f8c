"""What is learned is decided for every optimizer and schedule, each number with a reason."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from thrifty import optim
from thrifty.errors import JobError
from thrifty.models import Traits
from thrifty.optim import OPTIMIZERS, SCHEDULES, Schedule
from thrifty.planner import growing, rules
from thrifty.planner.growing import Grown
from thrifty.planner.learning import Learning, decide
from thrifty.planner.rules import Reasons
from thrifty.spec import Cleaning, Dataset, OptimPlan, Sound, parse_job

TRAITS = {
    "plain": Traits(),
    "residual": Traits(convolves=True, batch_norm=True),
    "decoder": Traits(attends=True),
    "loaded": Traits(attends=True, loaded=True),
}


@pytest.fixture
def images() -> Dataset:
    counts = {"train": 1000, "validation": 100, "test": 100}
    return Dataset(
        kind="image", key="aa", counts=counts, labels=("a", "b"), label_counts={"a": 600, "b": 600}, shape=(1, 16, 16),
        mean=(0.5,), std=(0.5,), crop="center", vocabulary=0, tokens={}, text_bytes={}, source_bytes=1, stored_bytes=1,
        cleaning=Cleaning(seen=1200, kept=1200, rejected={}, duplicates=0, across_splits=0, notes=()),
    )  # fmt: skip


def decided(images: Dataset, model: str = "mlp-small", **train: Any) -> tuple[Learning, Reasons]:
    why = Reasons([])
    data = {"kind": "image", "path": "x", "size": 16}
    return decide(parse_job({"name": "a", "data": data, "model": model, "train": train}), images, why), why


@pytest.mark.parametrize("traits", TRAITS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_has_its_numbers_with_a_source(name: str, traits: str) -> None:
    kind = "language" if traits == "decoder" else "image"
    rate, said = rules.learning_rate(name, TRAITS[traits], kind, 10_000_000, 64)
    assert 1e-6 < rate <= 0.5 and said
    decay, said = rules.weight_decay(name, TRAITS[traits], kind)
    assert 0 <= decay <= 0.5 and said
    assert all(0 <= beta < 1 for beta in rules.betas(name, TRAITS[traits], kind))
    assert 0 < rules.eps(name) <= 1e-6


def test_lion_trades_rate_for_decay() -> None:
    for traits in TRAITS.values():
        (rate, _), (of_adamw, _) = (rules.learning_rate(n, traits, "language", 10**7, 64) for n in ("lion", "adamw"))
        (decay, _), (its, _) = (rules.weight_decay(n, traits, "language") for n in ("lion", "adamw"))
        assert rate * decay == pytest.approx(of_adamw * its, rel=0.05)


def test_lambs_rate_grows_with_the_root_of_the_batch() -> None:
    rates = [rules.learning_rate("lamb", Traits(attends=True), "language", 10**7, size)[0] for size in (512, 2048)]
    assert rates == pytest.approx([6.25e-4, 1.25e-3], rel=0.02), "You et al. 2020 have 6.25e-4 for 512"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_asked_for(images: Dataset, name: str) -> None:
    learning, why = decided(images, optimizer=name, epochs=3)
    (groups,) = (line for line in why.lines if line.field == "groups")
    assert "vector" in groups.value or groups.value == "no decay"
    assert (learning.optim.momentum > 0) == (name in {"momentum", "nesterov", "muon"})
    assert learning.optim.schedule == ("fixed" if name in {"gd", "schedule_free"} else "cosine")
    assert len({line.field for line in why.lines}) == len(why.lines)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_can_be_asked_for(images: Dataset, name: str) -> None:
    learning, why = decided(images, schedule=name, steps=100)
    told = {line.field: line.value for line in why.lines}
    plan, rate = learning.optim, Schedule(learning.optim).rate
    assert max(rate(step) for step in range(100)) == pytest.approx(plan.learning_rate)
    assert plan.warmup_steps == (30 if name == "one_cycle" else 5)
    assert plan.cooldown_steps == (20 if name == "wsd" else 0) and ("cooldown" in told) == (name == "wsd")
    assert plan.power == (2.0 if name == "polynomial" else 1.0) and ("power" in told) == (name == "polynomial")
    asked, _ = decided(images, schedule=name, steps=100, warmup=0.1, power=3, cooldown=0.5)
    assert asked.optim.warmup_steps == 10
    assert asked.optim.cooldown_steps == (50 if name == "wsd" else 0)
    assert asked.optim.power == (3.0 if name == "polynomial" else 1.0)


def test_what_to_doubt_of_an_optimizer_is_told(images: Dataset) -> None:
    def doubt(model: str, optimizer: str) -> str:
        _, why = decided(images, model, optimizer=optimizer)
        (line,) = (line for line in why.lines if line.field == "optimizer")
        return line.doubt

    assert "statistics" in doubt("resnet8", "schedule_free") and doubt("mlp-small", "schedule_free") == ""
    assert "every ten steps" in doubt("mlp-small", "soap") and doubt("mlp-small", "lion") == ""


def test_a_plan_of_before_is_still_read(images: Dataset) -> None:
    """Plans on disk from before there were polynomials and cooldowns say nothing of them."""
    learning, _ = decided(images, steps=100)
    kept = json.loads(learning.optim.model_dump_json())
    del kept["power"], kept["cooldown_steps"]
    assert OptimPlan.model_validate_json(json.dumps(kept)) == learning.optim
    assert all(value is not None for value in learning.optim.model_dump().values())
    assert math.isfinite(optim.Schedule(learning.optim).rate(99))


def test_dropout_is_drawn_by_bits_where_there_is_any() -> None:
    assert rules.dropout(Traits(drops=True))[0] == "bits"
    assert rules.dropout(Traits()) == ("sampled", "the model has none")


def test_augmentation_is_as_asked_and_has_its_reason(images: Dataset) -> None:
    _, why = decided(images, augment={"flip": True, "crop": 2})
    (line,) = [line for line in why.lines if line.field == "augment"]
    assert line.value == "flip, crop within 2 pixels of margin" and line.source == "job"
    assert "augment" not in [line.field for line in decided(images)[1].lines]


@pytest.mark.parametrize("name", ["crop", "cutout"])
def test_an_augmentation_that_leaves_nothing_is_refused(images: Dataset, name: str) -> None:
    with pytest.raises(JobError, match=f"train.augment.{name} is 16, and images have 16 pixels a side.*: 2, 8"):
        decided(images, augment={name: 16})
    decided(images, augment={name: 15})


def test_changes_of_bands_are_refused_of_waves(images: Dataset) -> None:
    sound = {"kind": "audio", "shape": (64, 320), "sound": Sound(rate=16_000, features="wave")}
    waves = images.model_copy(update={**sound, "mean": (), "std": ()})
    data = {"kind": "audio", "path": "x", "features": "wave"}
    job = {"name": "a", "data": data, "model": "wav2vec2-tiny", "train": {"augment": {"noise": 20, "blank_frames": 4}}}
    assert decide(parse_job(job), waves, Reasons([])).model.family == "wav2vec2"
    job["train"] = {"augment": {"noise": 20, "stretch": 0.1, "warp": 0.1}}
    with pytest.raises(JobError, match=r"has stretch, warp, of frames of mel bands, and data\.features is wave"):
        decide(parse_job(job), waves, Reasons([]))


def test_what_is_no_image_is_not_augmented(images: Dataset) -> None:
    texts = images.model_copy(update={"kind": "text", "shape": (16,), "vocabulary": 100})
    asked = {"name": "a", "data": {"kind": "text", "path": "x"}, "model": "bert-tiny"}
    with pytest.raises(
        JobError, match=r"train\.augment is flip, and data of kind 'text' are neither images nor recordings"
    ):
        decide(parse_job({**asked, "train": {"augment": {"flip": True}}}), texts, Reasons([]))


def test_initial_weights_by_pattern_have_a_name_for_the_rest(images: Dataset) -> None:
    learning, why = decided(images, init={"fc.weight": "zeros"})
    assert learning.init == {"fc.weight": "zeros", "*": "default"}
    (line,) = [line for line in why.lines if line.field == "init"]
    assert (line.value, line.source) == ("fc.weight: zeros, *: default", "job")
    with pytest.raises(JobError, match=r"'fc\.wait' matches no parameter of the model\. Did you mean 'fc\.weight'"):
        decided(images, init={"fc.wait": "zeros"})


def test_smooth_answers_are_as_asked_and_of_classes_alone(images: Dataset) -> None:
    (line,) = [line for line in decided(images, label_smoothing=0.1)[1].lines if line.field == "label_smoothing"]
    assert (line.value, line.source) == ("0.1", "job")
    assert "label_smoothing" not in [line.field for line in decided(images)[1].lines]
    held = {"kind": "language", "task": "language", "shape": (16,), "vocabulary": 300, "tokens": {"train": 9_000}}
    text = images.model_copy(update=held)
    asked = {"name": "a", "data": {"kind": "language", "path": "x"}, "model": "gpt-nano"}
    with pytest.raises(JobError, match=r"train\.label_smoothing is 0\.1, and task 'language' has no classes"):
        decide(parse_job({**asked, "train": {"label_smoothing": 0.1}}), text, Reasons([]))


def test_mup_lowers_the_rates_of_wide_models(images: Dataset) -> None:
    learning, why = decided(images, "mlp-large", init="mup")
    assert learning.optim.shares == {"hidden.1.weight": 1 / 8, "fc.weight": 1 / 8}
    (line,) = [line for line in why.lines if line.field == "rates"]
    assert line.value == "0.125 of it: hidden.1.weight, fc.weight" and "8 base widths" in line.reason and line.doubt
    assert decided(images, "mlp-small", init="mup")[0].optim.shares == {}
    shares = decided(images, "mlp-large", init={"fc.weight": "zeros", "*": "mup"}, optimizer="momentum")[0].optim.shares
    assert shares["fc.weight"] == 1 / 8 and shares["hidden.0.weight"] == 8 and "hidden.1.weight" not in shares
    assert decided(images, "mlp-large")[0].optim.shares == {}
    learning, why = decided(images, "mlp-large", init="mup", optimizer="muon")
    assert learning.optim.shares["hidden.1.weight"] == 8**-0.5 and learning.optim.shares["fc.weight"] == 1 / 8
    (line,) = [line for line in why.lines if line.field == "rates"]
    assert "Qiu et al. 2025" in line.reason


@pytest.mark.parametrize(
    ("model", "train", "said"),
    [
        ("mlp-large", {"init": "mup", "optimizer": "soap"}, "not known for soap: the rule that is published for it"),
        ("mlp-large", {"init": "mup", "optimizer": "schedule_free"}, "Set train.optimizer to one of: adam, adamw"),
        ("mlp-large", {"init": {"fc.*": "mup"}}, "train.init is mup for 'fc.*', and it is for whole models"),
    ],
)
def test_mup_that_cannot_be_meant(images: Dataset, model: str, train: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError) as caught:
        decided(images, model, **train)
    assert said in str(caught.value)


def test_images_grow_as_asked_and_time_goes_by_their_mean(images: Dataset) -> None:
    learning, why = decided(images, "resnet8", progressive=0.5, steps=100)
    assert learning.growth is not None and learning.growth.at(0) == 8 and learning.growth.mean_side == 11
    (line,) = [line for line in why.lines if line.field == "progressive"]
    assert line.value.startswith("from 8 to 16 pixels, ") and line.source == "job"
    assert decided(images)[0].growth is None


def test_images_that_cannot_grow_are_refused(images: Dataset) -> None:
    asked = {"name": "a", "data": {"kind": "image", "path": "x"}, "train": {"progressive": 0.5}}
    for changes, says in (
        ({"model": "mlp-small"}, r"0\.5, and 'mlp-small' may not take images of another side"),
        ({"model": "convnet-fast"}, "images of 8 pixels a side leave nothing after 3 halvings"),
        ({"model": "resnet8", "plan": {"compile": "whole"}}, r"0\.5, and plan\.compile is 'whole'"),
    ):
        with pytest.raises(JobError, match=says):
            decide(parse_job({**asked, **changes}), images, Reasons([]))
    texts = images.model_copy(update={"kind": "text", "shape": (16,), "vocabulary": 100})
    job = parse_job({**asked, "data": {"kind": "text", "path": "x"}, "model": "bert-tiny"})
    with pytest.raises(JobError, match=r"0\.5, and data of kind 'text' are no images"):
        decide(job, texts, Reasons([]))


def test_images_do_not_grow_unasked_unless_it_is_shown_to_learn_as_well(
    images: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Grown(
        "resnet", seeds=5, saved=0.4, worse=0.001, bound=0.004, margin=0.01, source="ResNet-8 on some pictures"
    )
    bad, other = replace(good, bound=0.02), replace(good, family="fast_convnet")
    for found, grows, says in (
        ((good, good), True, "took 40 % less time and lost 0.0010 of accuracy"),
        ((good,), False, "shown on 1 set of images, and 2 are asked"),
        ((good, good, bad), False, "at 95 % it loses at most 0.0200, where another seed may lose 0.0100"),
        ((other, other), False, "nothing was tried with models of this family"),
    ):
        monkeypatch.setattr(growing, "FOUND", found)
        learning, why = decided(images, "resnet8", steps=100)
        assert (learning.growth is not None) is grows
        (line,) = [line for line in why.lines if line.field == "progressive"]
        assert line.source == "rule" and line.doubt and says in line.reason
        assert line.value.startswith("from 8 to 16 pixels, " if grows else "whole images")
        assert ("is declined" in line.reason) is not grows


def test_images_that_cannot_grow_are_not_offered_to(images: Dataset) -> None:
    for model, changes in (("mlp-small", {}), ("convnet-fast", {}), ("resnet8", {"plan": {"compile": "whole"}})):
        job = parse_job({"name": "a", "data": {"kind": "image", "path": "x"}, "model": model, **changes})
        why = Reasons([])
        assert decide(job, images, why).growth is None
        assert "progressive" not in [line.field for line in why.lines]
