"""Plans of fine-tuning: what is trained is decided with reasons, counted, and foreseen to take less."""

from __future__ import annotations

from typing import Any

import pytest

from made_devices import device
from thrifty.errors import JobError
from thrifty.planner import declared_dataset, plan
from thrifty.planner.cluster import work_of
from thrifty.planner.learning import decide
from thrifty.planner.local import Local
from thrifty.planner.rules import Reasons
from thrifty.planner.traced import Traced
from thrifty.spec import AdaptPlan, DeclaredData, DeclaredImages, Plan, Spent, parse_job

# each plan traces a real model, and peft loads transformers
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_dry_run")]

WAY = {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "micro_batch": 4}
TEXT = {"kind": "language", "tokens": 100_000, "vocabulary": 300, "length": 64}
IMAGES = {"kind": "image", "images": 2_000, "classes": 7, "size": 16}


def local(model: str = "gpt-nano", data: dict[str, Any] = TEXT, **train: Any) -> tuple[Local, dict[str, Any]]:
    values = {"name": "a", "data": data, "model": model, "train": {"batch": 4, **train}, "plan": {"precision": "fp32"}}
    job = parse_job(values)
    assert isinstance(job.data, DeclaredData | DeclaredImages)
    why = Reasons([])
    dataset = declared_dataset(job.data)
    found = Local(job, decide(job, dataset, why), dataset, device())
    return found, {line.field: line for line in why.lines}


def planned(found: Local) -> Plan:
    return plan(found.job, found.dataset, found.device, key="k", spent=Spent())


def test_freezing_is_told_and_takes_less() -> None:
    whole, _ = local()
    frozen, why = local(freeze=["w?e.*", "h.0.*", "h.1.*"])
    assert frozen.learning.adapt == AdaptPlan(freeze=("w?e.*", "h.0.*", "h.1.*"))
    assert (why["freeze"].value, why["freeze"].source) == ("w?e.*, h.0.*, h.1.*", "job")
    assert why["trained parameters"].reason.startswith("48.") and " % of 1.8" in why["trained parameters"].reason
    before, after = whole.price(WAY), frozen.price(WAY)
    assert after.peak_bytes < before.peak_bytes and after.seconds < 0.9 * before.seconds
    assert frozen.trace(WAY).optimizer_bytes < 0.5 * whole.trace(WAY).optimizer_bytes
    assert planned(frozen).adapt == frozen.learning.adapt


def test_frozen_batch_norms_are_told() -> None:
    _, why = local("resnet8", IMAGES, freeze="*bn1*")
    assert "frozen batch norms normalise as in evaluation" in why["freeze"].reason


@pytest.mark.parametrize("base", ["own", "4bit"])
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_is_decided_told_and_foreseen(kind: str, base: str) -> None:
    pytest.importorskip("peft")
    whole, _ = local()
    adapted, why = local(adapter={"kind": kind, "base": base})
    assert adapted.learning.adapt.rank == 8 and adapted.learning.adapt.alpha == 16
    assert why["adapter.targets"].value == "h.*.attn.c_attn, h.*.attn.c_proj, h.*.mlp.c_fc, h.*.mlp.c_proj"
    assert "Hu et al. 2021" in why["adapter.rank"].reason and "were not trained before" in why["adapter"].doubt
    assert (adapted.learning.optim.optimizer, adapted.learning.optim.learning_rate) == ("adamw", 2e-4)
    assert "% of 1.8" in why["trained parameters"].reason
    before, after = whole.price(WAY), adapted.price(WAY)
    # DoRA norms and scales each product once more: of small models it keeps more than it saves
    assert kind == "dora" or after.peak_bytes < before.peak_bytes
    assert adapted.trace(WAY).optimizer_bytes < 0.1 * whole.trace(WAY).optimizer_bytes
    decided = planned(adapted)
    assert Plan.model_validate_json(decided.model_dump_json()) == decided
    assert isinstance(work_of(adapted.job, adapted.learning, adapted.dataset), Traced)


def test_a_head_is_trained_itself_and_what_the_job_says_is_kept() -> None:
    pytest.importorskip("peft")
    found, why = local("resnet8", IMAGES, adapter={"kind": "lora", "rank": 3, "alpha": 5, "targets": "*conv2"})
    assert found.learning.adapt == AdaptPlan(kind="lora", rank=3, alpha=5.0, targets=("*conv2",), whole=("fc.*",))
    assert why["adapter.rank"].source == why["adapter.targets"].source == "job"
    assert why["adapter.whole"].value == "fc.*"
    assert (found.learning.optim.optimizer, found.learning.optim.learning_rate) == ("adamw", 5e-4)


def test_a_plan_without_the_field_trains_all() -> None:
    decided = planned(local()[0])
    values = decided.model_dump(mode="json")
    del values["adapt"]
    assert Plan.model_validate(values) == decided


def test_a_pattern_that_matches_nothing_stops_the_plan() -> None:
    with pytest.raises(JobError, match=r"'h\.9\.\*' matches no parameter of the model\. Did you mean 'h\.\d\.\*'\?"):
        local(freeze="h.9.*")
