"""Job files: what is taken, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from thrifty.errors import JobError
from thrifty.spec import DeclaredData, DeclaredImages, Job, LanguageData, TextData, load_job, parse_job, raw_data
from thrifty.spec.job import parse_budget

GOOD: dict[str, Any] = {
    "name": "digits",
    "data": {"kind": "image", "path": "digits"},
    "model": "resnet8",
    "target": {"accuracy": 0.97},
    "budget": {"memory": "4GiB", "time": "20min", "energy": "0.05kWh", "money": "0.50USD"},
    "train": {"epochs": 3, "batch": 32},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good job with one key set."""
    job = yaml.safe_load(yaml.safe_dump(GOOD))
    *sections, key = path.split(".")
    place = job
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return job


def test_units_are_read() -> None:
    budget = parse_job(GOOD).budget
    assert (budget.memory, budget.time, budget.energy, budget.money) == (4 * 2**30, 1200.0, 180_000.0, 0.5)


MISTAKES = [
    ("modle", "resnet8", ["unknown key 'modle'", "did you mean 'model'"]),
    ("train.epoch", 3, ["unknown key 'train.epoch'", "did you mean 'epochs'"]),
    ("budget.tiem", "3s", ["unknown key 'budget.tiem'", "did you mean 'time'"]),
    ("data.pathh", "x", ["unknown key 'data.pathh'", "did you mean 'path'"]),
    ("data.split", {"validatoin": 0.1}, ["unknown key 'data.split.validatoin'", "did you mean 'validation'"]),
    ("data.kind", "imgae", ["unknown data kind 'imgae'", "did you mean 'image'"]),
    ("budget.memory", "4GBi", ["unknown unit 'GBi'", "GiB", "budget.memory"]),
    ("budget.memory", "4gib", ["unknown unit 'gib'", "did you mean 'GiB'"]),
    ("budget.memory", 4, ["needs a number and a unit", "got 4", "4GiB"]),
    ("budget.time", "20 minutes", ["unknown unit 'minutes'", "min"]),
    ("budget.time", "-3min", ["needs a number and a unit", "'-3min'"]),
    ("budget.time", "0s", ["above zero", "'0s'"]),
    ("budget.energy", "0.05", ["needs a number and a unit", "0.05kWh"]),
    ("budget.money", "0.50EUR", ["unknown unit 'EUR'", "USD"]),
    ("target", {"accuracy": 1.5}, ["target.accuracy", "1.5"]),
    ("target", {"accuracy": 0.9, "loss": 1.0}, ["exactly one"]),
    ("target", {"bits_per_byte": 2.0}, ["task 'classify' has no target 'bits_per_byte'"]),
    ("task", "language", ["is for task 'classify', not 'language'"]),
    ("task", "", ["task", "''"]),
    ("task", [], ["task", "[]"]),
    ("data", {"kind": "text", "path": "x", "task": 0}, ["data.task", "0"]),
    ("data.kind", {}, ["unknown data kind '{}'"]),
    ("data.kind", 3, ["unknown data kind '3'"]),
    ("train.steps", 10, ["epochs or steps, not both"]),
    ("train.adapter", "lroa", ["train.adapter.kind", "'lora' or 'dora'", "'lroa'"]),
    ("train.adapter", {"kind": "lora", "rnak": 4}, ["unknown key 'train.adapter.rnak'", "did you mean 'rank'"]),
    ("train.adapter", {"kind": "dora", "rank": 0}, ["train.adapter.rank", "0"]),
    ("train.freeze", [""], ["train.freeze"]),
    ("train.init", 3, ["train.init", "a name, or a name for each pattern of parameters, got 3"]),
    ("train.init", {}, ["train.init", "got {}"]),
    ("train.init", {"fc.*": 0}, ["train.init", "got 'fc.*': 0"]),
    ("train.batch", 0, ["train.batch", "0"]),
    ("train.batch", "ful", ["train.batch", "'ful'"]),
    ("train.learning_rate", "fast", ["train.learning_rate", "'fast'"]),
    ("plan.precision", "fp12", ["plan.precision", "'fp8'"]),
    ("name", "../escape", ["letters, digits", "'../escape'"]),
    ("data.split", {"validation": 0.6, "test": 0.4}, ["under a tenth to train on"]),
    ("data.size", 2, ["data.size", "2"]),
]


@pytest.mark.parametrize(("path", "value", "said"), MISTAKES, ids=[f"{row[0]}={row[1]}" for row in MISTAKES])
def test_a_mistake_is_told_with_key_value_and_mend(path: str, value: Any, said: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        parse_job(changed(path, value))
    for part in said:
        assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_keys_are_named() -> None:
    with pytest.raises(JobError, match=r"lacks the key 'model'"):
        parse_job({"name": "a", "data": {"kind": "image", "path": "x"}})
    with pytest.raises(JobError, match=r"lacks the key 'data.kind'; known: audio, image, language"):
        parse_job({"name": "a", "data": {"path": "x"}, "model": "resnet8"})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(JobError) as caught:
        parse_job({**changed("train.epoch", 1), "modle": 1})
    assert "train.epoch" in str(caught.value)
    assert "modle" in str(caught.value)


def test_the_data_path_is_taken_from_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(GOOD))
    assert load_job(tmp_path / "job.yaml").data.path == (tmp_path / "digits").resolve()


def test_a_model_of_ones_own_is_taken_from_beside_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("")
    (tmp_path / "tiny").mkdir()
    wanted = {"nets:net": f"{tmp_path}/nets:net", "hf:tiny": f"hf:{tmp_path}/tiny", "hf:a/b": "hf:a/b", "os:x": "os:x"}
    for name, found in wanted.items():
        job = {"name": "a", "data": {"kind": "image", "path": "x"}, "model": name}
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
        assert load_job(tmp_path / "job.yaml").model == found


def test_a_missing_job_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("a: 1")
    with pytest.raises(JobError, match=r"no job file .*Did you mean 'digits.yaml'\?"):
        load_job(tmp_path / "digit.yaml")


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "just words", "!!python/object/apply:os.system ['true']"])
def test_what_is_not_a_job_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(JobError, match=r"job\.yaml"):
        load_job(tmp_path / "job.yaml")


def test_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(JobError, match="is not YAML"):
        load_job(tmp_path / "job.yaml")


def test_a_job_survives_its_own_json() -> None:
    job = parse_job(GOOD)
    assert Job.model_validate_json(job.model_dump_json()) == job


@given(
    memory=st.integers(1, 2**50),
    seconds=st.floats(1e-3, 1e7),
    rate=st.floats(1e-6, 10),
    batch=st.one_of(st.integers(1, 10**6), st.just("full")),
)
def test_any_job_survives_its_own_yaml(memory: int, seconds: float, rate: float, batch: int | str) -> None:
    budget = {"memory": f"{memory}B", "time": f"{seconds!r}s"}
    job = parse_job({**GOOD, "budget": budget, "train": {"learning_rate": rate, "batch": batch}})
    assert parse_job(yaml.safe_load(yaml.safe_dump(job.model_dump(mode="json", exclude_defaults=True)))) == job


def test_a_job_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_job(GOOD).name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "field", "value"), [("10min", "time", 600), ("1kJ", "energy", 1e3), ("2USD", "money", 2)]
)
def test_a_budget_is_told_by_its_unit(text: str, field: str, value: float) -> None:
    assert parse_budget(text).model_dump(exclude_none=True).keys() == {field}
    assert getattr(parse_budget(text), field) == value


def test_a_budget_that_is_none_is_told() -> None:
    with pytest.raises(JobError, match=r"'10 bananas' is no amount of time, energy or money.*min"):
        parse_budget("10 bananas")


DECLARED = {"kind": "language", "tokens": "300e9", "vocabulary": 51200, "length": 2048}


def test_data_can_be_declared_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("name: a\nmodel: gpt2\ndata: {kind: language, tokens: 300e9, vocabulary: 51200, length: 2048}\n")
    job = load_job(path)
    assert isinstance(job.data, DeclaredData)
    assert (job.data.tokens, job.task) == (300_000_000_000, "language")
    assert Job.model_validate_json(job.model_dump_json()) == job
    with pytest.raises(JobError, match=r"has no data to train on: it declares 300\.0 G tokens.*data\.path"):
        raw_data(job)


PICTURES = {"kind": "image", "images": "1.2e6", "classes": 1000, "size": 224}


def test_images_can_be_declared_by_their_number_and_size() -> None:
    job = parse_job({"name": "a", "model": "resnet50", "data": PICTURES})
    assert isinstance(job.data, DeclaredImages)
    assert (job.data.images, job.data.color, job.task) == (1_200_000, "rgb", "classify")
    assert Job.model_validate_json(job.model_dump_json()) == job
    assert parse_job(job.model_dump(mode="json")) == job
    with pytest.raises(JobError, match=r"it declares 1\.2 M images and names no folder.*data\.path"):
        raw_data(job)


def test_data_with_a_folder_is_no_declaration() -> None:
    job = parse_job({"name": "a", "data": {"kind": "language", "path": "x"}, "model": "gpt2"})
    assert isinstance(raw_data(job), LanguageData)


DECLARED_MISTAKES = [
    ({**DECLARED, "path": "x"}, ["tokens of a folder are counted"]),
    ({**DECLARED, "tokens": "many"}, ["data.tokens", "300e9", "'many'"]),
    ({**DECLARED, "tokens": 0.5}, ["data.tokens", "whole number"]),
    ({**DECLARED, "tokens": 0}, ["data.tokens", "greater than 0"]),
    ({**DECLARED, "lenght": 3}, ["unknown key 'data.lenght'", "did you mean 'length'"]),
    ({k: v for k, v in DECLARED.items() if k != "length"}, ["lacks the key 'data.length'"]),
    ({"kind": "language"}, ["lacks the key 'data.path'"]),
    ({**PICTURES, "path": "x"}, ["unknown key 'data.images'"]),
    ({**PICTURES, "classes": 1}, ["data.classes", "greater than or equal to 2"]),
    ({**PICTURES, "colour": "rgb"}, ["unknown key 'data.colour'", "did you mean 'color'"]),
    ({k: v for k, v in PICTURES.items() if k != "size"}, ["lacks the key 'data.size'"]),
    ({"kind": "image"}, ["lacks the key 'data.path'"]),
]


@pytest.mark.parametrize(("data", "said"), DECLARED_MISTAKES, ids=[row[1][0] for row in DECLARED_MISTAKES])
def test_mistakes_of_declared_data_are_told(data: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(JobError) as caught:
        parse_job({"name": "a", "data": data, "model": "gpt2"})
    for part in said:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("pins", "said"),
    [({"tenzor": 8}, "did you mean 'tensor'"), ({"tensor": 0}, "plan.tensor"), ({"zero": 4}, "plan.zero")],
)
def test_pinned_degrees_are_checked(pins: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        parse_job({"name": "a", "data": DECLARED, "model": "gpt2", "plan": pins})


def text_job(**data: object) -> dict[str, object]:
    return {"name": "a", "data": {"kind": "text", "path": "reviews", **data}, "model": "bert-tiny"}


def test_texts_are_classified_by_columns_with_names_or_numbers() -> None:
    job = parse_job(text_job(text=2, label="stars"))
    assert job.task == "classify"
    assert isinstance(job.data, TextData)
    assert (job.data.text, job.data.label, job.data.header) == (2, "stars", None)


def test_the_tokenizer_lies_where_the_job_says(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(text_job(tokenizer="words/vocab.txt", cut_vocabulary=True)))
    data = load_job(tmp_path / "job.yaml").data
    assert isinstance(data, TextData)
    assert data.tokenizer == tmp_path / "words" / "vocab.txt"
    assert data.path == tmp_path / "reviews"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"text": 0}, r"data\.text: .*greater than 0 \(got 0\)"),
        ({"label": ""}, r"data\.label: .*at least 1 character"),
        ({"text": "a", "label": "a"}, "two of text, text_b and label are column 'a'"),
        ({"cut_vocabulary": True}, "cut_vocabulary cuts the pieces that tokenizer names"),
        ({"vocabulary": 900, "tokenizer": "vocab.txt"}, "give one of them"),
        ({"lenght": 9}, r"unknown key 'data\.lenght' in .*did you mean 'length'"),
        (
            {"kind": "texts"},
            r"unknown data kind 'texts' .*did you mean 'text'\?\); known: audio, image, language, table, text",
        ),
        ({"split": {"test": 0.95}}, r"data\.split: validation 0\.1 and test 0\.95 leave"),
    ],
)
def test_mistakes_in_the_data_section_of_texts(data: dict[str, object], says: str) -> None:
    with pytest.raises(JobError, match=says):
        parse_job(text_job(**data))


def test_an_adapter_may_be_its_kind_alone_and_a_pattern_alone() -> None:
    train = parse_job(changed("train", {"adapter": "dora", "freeze": "fc.*"})).train
    assert train.adapter is not None and (train.adapter.kind, train.adapter.rank) == ("dora", None)
    assert train.freeze == ("fc.*",)
    assert parse_job(changed("train", {"freeze": ["a.*", "b"]})).train.freeze == ("a.*", "b")


TABLE: dict[str, Any] = {"name": "a", "data": {"kind": "table", "path": "a.csv"}, "model": "table-mlp-small"}


@pytest.mark.parametrize(
    ("more", "task"),
    [
        ({}, None),
        ({"task": "regress"}, "regress"),
        ({"data": {**TABLE["data"], "task": "regress"}}, "regress"),
        ({"task": "classify", "target": {"auc": 0.9}}, "classify"),
        ({"target": {"rmse": 4e4}}, None),
    ],
)
def test_a_table_is_for_the_task_that_is_asked_for_or_that_it_tells(more: dict[str, Any], task: str | None) -> None:
    job = parse_job({**TABLE, **more})
    assert job.task == task
    assert raw_data(job).task == task  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"task": "language"}, "data of kind 'table' is for task 'classify' or 'regress', not 'language'"),
        ({"task": "regress", "target": {"auc": 0.9}}, "task 'regress' has no target 'auc'"),
        ({"target": {"wer": 0.1}}, "data of kind 'table' has no target 'wer': accuracy, auc, loss, mae, r2, rmse"),
        ({"data": {**TABLE["data"], "names": ["a", "b", "a"]}}, "names has a name twice: a, b, a"),
        ({"data": {**TABLE["data"], "names": ["a"], "header": True}}, "names are for tables that no row names"),
        ({"data": {**TABLE["data"], "target": 0}}, r"data\.target: .*greater than 0"),
        ({"data": {**TABLE["data"], "taget": "y"}}, r"unknown key 'data\.taget' in .*did you mean 'target'"),
    ],
)
def test_mistakes_in_a_job_for_a_table(more: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError, match=says):
        parse_job({**TABLE, **more})
