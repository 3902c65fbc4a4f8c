"""The job's JSON Schema: every example job is valid, mistakes are not, and nothing that a job may say is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from thrifty.names import named_schema
from thrifty.spec import Job
from thrifty.spec.augment import Augment
from thrifty.spec.data import DECLARED, RAW
from thrifty.spec.job import Budget, Pins, Target
from thrifty.spec.schema import attributes_of, job_schema
from thrifty.spec.train import Train
from thrifty.spec.tuning import SETTINGS, Tune

ROOT = Path(__file__).parents[2]
SCHEMA = named_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


class _AsEditorsRead(yaml.SafeLoader):
    """YAML 1.2, where 300e9 and 1e-4 are numbers, which PyYAML (1.1) takes for text."""


_AsEditorsRead.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def told(job: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(job)]


def example_jobs() -> dict[str, Any]:
    """Every job of the repository: the files of examples/, and what the pages show."""
    found = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "examples").glob("*.yaml"))}
    for page in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        shown = re.findall(r"^```yaml[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        found |= {f"{page.relative_to(ROOT)}-{at}": text for at, text in enumerate(shown)}
    jobs = {name: yaml.load(text, _AsEditorsRead) for name, text in found.items()}
    return {name: job for name, job in jobs.items() if isinstance(job, dict) and {"name", "data", "model"} <= set(job)}


JOBS = example_jobs()


def test_it_is_a_schema_of_the_draft_that_it_names() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert len(JOBS) >= 8


@pytest.mark.parametrize("name", JOBS)
def test_every_example_job_is_valid(name: str) -> None:
    assert told(JOBS[name]) == []


GOOD: dict[str, Any] = {"name": "digits", "data": {"kind": "image", "path": "digits"}, "model": "resnet8"}
TEXTS = {"kind": "language", "tokens": "300e9", "vocabulary": 50_000, "length": 2048}
MISTAKES = [
    ("modle", "resnet8"),
    ("train.epoch", 3),
    ("train.epochs", 0),
    ("train.epochs", "many"),
    ("train.batch", "ful"),
    ("train.optimizer", "adamm"),
    ("train.schedule", "cosin"),
    ("train.init", "he_normall"),
    ("train.init", "zeros"),
    ("train.adapter", "lroa"),
    ("train.adapter", {"kind": "lora", "rnak": 4}),
    ("train.augment", {"flipp": True}),
    ("train.augment", {"randaugment": {"changes": 15}}),
    ("train.freeze", [""]),
    ("budget.tiem", "3s"),
    ("budget.memory", "4GBi"),
    ("budget.memory", 4),
    ("budget.time", "20 minutes"),
    ("budget.time", "-3min"),
    ("budget.time", "0s"),
    ("budget.time", "0e3s"),
    ("budget.energy", "0.05"),
    ("budget.money", "0.50EUR"),
    ("target", {"accuracy": 1.5}),
    ("target", {"accuracy": 0.9, "loss": 1.0}),
    ("target", {}),
    ("plan.precision", "fp12"),
    ("plan.zero", 4),
    ("data.pathh", "x"),
    ("data.size", 2),
    ("data.kind", "imgae"),
    ("data.max_file_bytes", "64M"),
    ("data.split", {"validatoin": 0.1}),
    ("data", {"kind": "image"}),
    ("data", {"kind": "image", "images": 100, "path": "x", "classes": 2, "size": 32}),
    ("data", {**TEXTS, "tokens": 0}),
    ("data", {**TEXTS, "tokens": "many"}),
    ("task", "clasify"),
    ("report_to", "tensorbord"),
    ("report_to", ["wandb", "wandb"]),
    ("tune.sampler", "best"),
    ("tune.space", {"learning_rat": [0.1]}),
    ("tune.space", {}),
    ("tune.space", {"learning_rate": {"lowest": 1}}),
]


def changed(path: str, value: Any) -> dict[str, Any]:
    job = json.loads(json.dumps(GOOD))
    *sections, key = path.split(".")
    place = job
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return job


@pytest.mark.parametrize(("path", "value"), MISTAKES, ids=[f"{path}={value}" for path, value in MISTAKES])
def test_a_mistake_is_refused(path: str, value: Any) -> None:
    assert told(changed(path, value))


TAKEN = [
    ("data", TEXTS),
    ("data", {**TEXTS, "tokens": 300e9}),
    ("data", {"kind": "image", "images": 1_281_167, "classes": 1000, "size": 224}),
    ("data", {"kind": "audio", "path": "x", "names": "{label}_{index}", "test": {"index": "0-4"}}),
    ("data", {"kind": "audio", "path": "x", "names": "{label}_{index}", "test": {"index": [0, "5-9"]}}),
    ("data", {"kind": "table", "path": "x", "target": 3, "names": ["a", "b"]}),
    ("train.adapter", "lora"),
    ("train.adapter", {"kind": "dora", "rank": 4}),
    ("train.freeze", "blocks.*"),
    ("train.freeze", ["a.*", "b.*"]),
    ("train.init", {"fc.weight": "zeros", "*": "mup"}),
    ("train.batch", "full"),
    ("model", "gpt-nano@3x96"),
    ("model", "own_model:mixer"),
    ("report_to", "wandb"),
    ("report_to", ["tensorboard", "mlflow"]),
    ("tune.space", {"learning_rate": {"low": 1e-4, "high": 1e-1}, "batch": [16, 32], "schedule": "cosine"}),
    ("budget", {"memory": "1_000 MB", "time": "1.5e3s"}),
    ("train.epochs", None),
]


@pytest.mark.parametrize(("path", "value"), TAKEN, ids=[f"{path}={value}" for path, value in TAKEN])
def test_whatever_form_a_job_may_have_is_taken(path: str, value: Any) -> None:
    job = changed(path, value)
    Job.model_validate(job)
    assert told(job) == []


# by where they stand in a job
SECTIONS: dict[str, type[BaseModel]] = {
    "": Job, "train.": Train, "train.augment.": Augment, "plan.": Pins, "budget.": Budget, "target.": Target,
    "tune.": Tune, **{f"data:{tag}.": kind for tag, kind in {**RAW, **DECLARED}.items()},
}  # fmt: skip
KEYS = [f"{place}{key}" for place, noun in SECTIONS.items() for key in noun.model_fields]
SWITCHES = {
    f"{place}{key}" for place, noun in SECTIONS.items() for key, about in noun.model_fields.items()
    if "bool" in str(about.annotation)
}  # fmt: skip
DATA: dict[str, dict[str, Any]] = {
    **{kind: {"kind": kind, "path": "x"} for kind in RAW},
    "declared": TEXTS,
    "declared-images": {"kind": "image", "images": 100, "classes": 10, "size": 32},
}
# no letters that say a number, yes or no
TEXT = st.text("abcdegh", max_size=4)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 400), st.floats(-1, 3), TEXT, st.just({}), st.just([]),
    st.sampled_from(["4GiB", "20min", "0.05kWh", "0.50USD", "full", "adamw", "cosine", "lora", "fp32", "gray", "text"]),
    st.lists(st.one_of(TEXT, st.integers(0, 9)), max_size=3),
    st.dictionaries(st.sampled_from([*SETTINGS, "kind", "rank", "validation", "0"]), st.floats(0, 1), max_size=2),
)  # fmt: skip
NAMES = {"train.optimizer", "train.schedule", "train.init"}


@given(st.sampled_from([key for key in KEYS if key not in NAMES]), VALUES)
def test_what_a_job_may_say_is_valid(key: str, value: Any) -> None:
    """But for text that is read as a number, and a number as yes or no: a schema has no word for them."""
    place, _, name = key.rpartition(".")
    if isinstance(value, bool | int | float) and isinstance(value, bool) != (key in SWITCHES):
        return
    if value is None and name == "task":
        return  # the job's own takes its place
    if place.startswith("data:"):
        job = {**GOOD, "data": {**DATA[place.removeprefix("data:")], name: value}}
    else:
        job = changed(key, value)
    try:
        Job.model_validate(job)
    except ValidationError:
        return
    assert told(job) == []


def test_every_key_is_described() -> None:
    nouns = {noun.__name__: noun for noun in SECTIONS.values()}
    for name, noun in nouns.items():
        where = SCHEMA if name == "Job" else SCHEMA["$defs"][name]
        assert set(where["properties"]) == set(noun.model_fields)
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    for section in sections:
        assert section["additionalProperties"] is False
        assert section["description"].endswith(".")
        for key, about in section["properties"].items():
            assert about["description"].endswith("."), key


@pytest.mark.parametrize("noun", SECTIONS.values(), ids=lambda noun: noun.__name__)
def test_a_docstring_names_no_field_that_is_not_there(noun: type[BaseModel]) -> None:
    assert set(attributes_of(noun)) <= set(noun.model_fields)


def test_defaults_are_such_as_a_job_may_give() -> None:
    for section in [SCHEMA, *SCHEMA["$defs"].values()]:
        for key, about in section["properties"].items():
            if "default" in about:
                validator = Draft202012Validator({**about, "$defs": SCHEMA["$defs"]})
                assert list(validator.iter_errors(about["default"])) == [], key
    assert SCHEMA["$defs"]["ImageData"]["properties"]["max_file_bytes"]["default"] == "64MiB"
    assert SCHEMA["$defs"]["Split"]["properties"]["validation"]["default"] == 0.1


def test_without_names_any_text_is_one() -> None:
    plain = Draft202012Validator(job_schema())
    job = changed("train.optimizer", "of-my-own")
    assert list(plain.iter_errors(job)) == []
    assert told(job)
