"""``ours:<directory>``: our family by its config, the data's classes, weights that come after the drawing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_models_table import images, sentences, text

from thrifty.errors import BundleError, JobError
from thrifty.models import MODELS, build, check_name, content_key, exchange, resolve, traits_of
from thrifty.models.init import initialise
from thrifty.planner import rules
from thrifty.spec import Dataset, ModelPlan
from thrifty.spec.job import locate_model

SMALL: dict[str, dict[str, Any]] = {
    "gpt-nano": {"layers": 1, "width": 16, "heads": 2},
    "llama-nano": {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "ffn": 24},
    "bert-tiny-original": {"layers": 1, "width": 16, "heads": 2},
}
DATA: dict[str, Callable[..., Dataset]] = {"gpt-nano": text, "llama-nano": text, "bert-tiny-original": sentences}


def write(folder: Path, name: str, seed: int = 5) -> torch.nn.Module:
    plan = resolve(name, DATA[name](64, 16))
    plan = plan.model_copy(update={"arguments": {**plan.arguments, **SMALL[name]}})
    model = build(plan)
    initialise(model, "xavier_normal", seed)
    exchange.save(model, plan, folder)
    return model


@pytest.mark.parametrize("name", SMALL)
def test_a_directory_becomes_a_plan_and_its_weights_the_models(name: str, tmp_path: Path) -> None:
    model = write(tmp_path / "theirs", name)
    check_name(f"ours:{tmp_path / 'theirs'}")
    plan = resolve(f"ours:{tmp_path / 'theirs'}", DATA[name](64, 12))
    assert (plan.name, plan.family) == ("ours:theirs", MODELS[name].family)
    assert plan.arguments["length"] == 12
    assert ModelPlan.model_validate_json(plan.model_dump_json()) == plan
    assert traits_of(plan).loaded
    assert rules.init(plan)[0] == "default"
    made = build(plan)
    assert initialise(made, "default", 0, plan) == f"weights of {tmp_path / 'theirs'}"
    tokens = torch.arange(1, 12)[None]
    assert torch.equal(made(tokens), model(tokens))


def test_what_tells_the_datas_classes_is_drawn(tmp_path: Path) -> None:
    write(tmp_path, "bert-tiny-original")
    plan = resolve(f"ours:{tmp_path}", sentences(64, 16, classes=5))
    first, again = build(plan), build(plan)
    says = initialise(first, "xavier_normal", 3, plan)
    assert says.startswith(f"weights of {tmp_path}; new are fc.weight, fc.bias: Xavier normal")
    initialise(again, "xavier_normal", 3, plan)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert first.fc.weight.shape == (5, 16)
    assert not first.fc.bias.any()


def test_a_key_is_of_what_the_directory_holds(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(tmp_path / folder, "gpt-nano", seed)
    one, same, other = (content_key(f"ours:{tmp_path / folder}") for folder in "abc")
    assert one == same != other


def test_a_directory_is_taken_from_the_jobs_folder() -> None:
    assert locate_model("ours:weights/small", Path("/jobs")) == "ours:/jobs/weights/small"


def test_a_run_goes_on_from_another_with_other_answers(tmp_path: Path) -> None:
    plan = resolve("bert-tiny", sentences(64, 16, classes=2))
    model = build(plan)
    initialise(model, "xavier_normal", 5)
    words = plan.model_copy(update={"arguments": {key: v for key, v in plan.arguments.items() if key != "classes"}})
    told = build(words)
    told.load_state_dict(model.state_dict(), strict=False)
    for folder, each, weights in (("classes", plan, model), ("words", words, told)):
        (tmp_path / folder / "bundle").mkdir(parents=True)
        save_file(weights.state_dict(), tmp_path / folder / "bundle" / "model.safetensors")
        (tmp_path / folder / "bundle" / "bundle.json").write_text(json.dumps({"model": each.model_dump(mode="json")}))
    for folder in ("classes", "words"):
        other = resolve(f"ours:{tmp_path / folder}", sentences(64, 12, classes=3))
        assert other.arguments == {**plan.arguments, "length": 12, "classes": 3}
        made = build(other)
        says = initialise(made, "default", 0, other)
        assert "; new are fc.weight, fc.bias: normal 0.02" in says
        assert torch.equal(made.blocks[1].mlp.up.weight, model.blocks[1].mlp.up.weight)
        assert torch.equal(made.positions.weight, model.positions.weight[:12])
    assert content_key(f"ours:{tmp_path / 'classes'}") != content_key(f"ours:{tmp_path / 'words'}")


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("theirz"))


def config(text: str | None) -> Callable[[Path], Any]:
    return lambda folder: (folder / "config.json").write_text(text) if text else (folder / "config.json").unlink()


def as_it_is(folder: Path) -> None:
    """Break nothing: the data does not fit."""


WRONG: list[tuple[Callable[[Path], Any], Dataset, type[ValueError], str]] = [
    (moved, text(), JobError, r"no directory .* Did you mean 'theirz'"),
    (config(None), text(), JobError, r"has no config\.json"),
    (config("{}"), text(), BundleError, r"of type None, which is none of ours"),
    (as_it_is, images(), JobError, r"learns from data of kind 'language', and this is 'image'"),
    (as_it_is, text(65, 16), JobError, r"have vocabulary 64, and the data has 65"),
    (as_it_is, text(64, 17), JobError, r"read 16 tokens at most, and the data has texts of 17\. Set data\.length: 16"),
]


@pytest.mark.parametrize(("breaks", "dataset", "kind", "says"), WRONG, ids=[row[3][:30] for row in WRONG])
def test_a_directory_that_does_not_fit_says_why(
    breaks: Callable[[Path], Any], dataset: Dataset, kind: type[ValueError], says: str, tmp_path: Path
) -> None:
    write(tmp_path / "theirs", "gpt-nano")
    breaks(tmp_path / "theirs")
    with pytest.raises(kind, match=says):
        resolve(f"ours:{tmp_path / 'theirs'}", dataset)
