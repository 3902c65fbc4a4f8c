"""The section ``tune`` of a job: what can be meant, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from thrifty.errors import JobError
from thrifty.spec import Job, load_job, parse_job
from thrifty.spec.tuning import Choice


def job(**tune: Any) -> Job:
    return parse_job({"name": "a", "data": {"kind": "image", "path": "x"}, "model": "resnet8", "tune": tune})


def test_numbers_that_yaml_takes_for_text_are_numbers() -> None:
    space = job(
        space={"learning_rate": ["1e-4", "1e-3"], "weight_decay": {"low": "1e-4", "high": 1, "first": "1e-2"}}
    ).tune.space
    assert space is not None
    assert space["learning_rate"].values == (1e-4, 1e-3) and space["weight_decay"].first == 1e-2


def test_lists_values_and_ranges_are_choices() -> None:
    space = job(
        space={
            "batch": [32, 64],
            "schedule": "cosine",
            "learning_rate": {"low": 1e-4, "high": 0.1},
            "augment.crop": {"low": 0, "high": 4},
            "augment": ["none", "strong"],
        },
        sampler="gp",
        pruner="hyperband",
        goal="cheapest",
    ).tune.space
    assert space is not None
    assert space["batch"] == Choice(values=(32, 64)) and space["schedule"].values == ("cosine",)
    assert space["learning_rate"].by_factors and not space["augment.crop"].by_factors
    assert Job.model_validate_json(job(space={"batch": [32]}).model_dump_json()).tune.space == {
        "batch": Choice(values=(32,))
    }


def test_models_of_the_space_are_found_from_the_folder_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("")
    text = yaml.safe_dump(
        {"name": "a", "data": {"kind": "image", "path": "x"}, "model": "resnet8",
         "tune": {"space": {"model": ["resnet8", "nets:small"]}}}
    )  # fmt: skip
    (tmp_path / "job.yaml").write_text(text)
    space = load_job(tmp_path / "job.yaml").tune.space
    assert space is not None and space["model"].values == ("resnet8", f"{tmp_path}/nets:small")


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"space": {"lerning_rate": [0.1]}}, "did you mean 'learning_rate'"),
        ({"space": {"seed": [1]}}, "there is no setting 'seed' to tune"),
        ({"spce": {}}, "unknown key 'tune.spce' in the job .did you mean 'space'"),
        ({"space": {"learning_rate": {"low": 0.1, "hihg": 1}}}, "did you mean 'high'"),
        ({"space": {"learning_rate": {"low": 1, "high": 0.1}}}, "a range goes from low to high, got 1 and 0.1"),
        ({"space": {"learning_rate": {"low": -1, "high": 0.1}}}, "learning_rate cannot be -1"),
        ({"space": {"learning_rate": {"low": 0, "high": 0.1, "log": True}}}, "begins above 0"),
        ({"space": {"learning_rate": {"low": 0.1}}}, "a list of values, or a range with low and high"),
        ({"space": {"batch": []}}, "a list of values, or a range"),
        ({"space": {"batch": [32, 32]}}, "a value is named twice"),
        ({"space": {"warmup": [0.1, 1.5]}}, "warmup cannot be 1.5"),
        ({"space": {"epochs": {"low": 1.5, "high": 3}}}, "epochs cannot be 1.5"),
        ({"space": {"augment": ["hefty"]}}, "a strength is one of job, none, mild, strong"),
        ({"space": {"augment.crop": [-1]}}, "augment.crop cannot be -1"),
        ({"space": {}}, "a space has settings in it"),
        ({"sampler": "tp"}, "tune.sampler"),
        ({"space": {"batch": {"low": 8, "high": 64, "first": 4}}}, "first is 4, which is not between 8 and 64"),
    ],
)
def test_a_mistake_is_told_with_its_mend(tune: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        job(**tune)
