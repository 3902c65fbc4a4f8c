"""Real data sets as they are published: what `thrifty init` sees in each, chooses for it, and says why."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from thrifty.data.look import look

pytestmark = pytest.mark.slow
SHARED = Path(__file__).parent.parent / "../shared/data"


@dataclass(frozen=True)
class Published:
    """A data set, and what is to be chosen for it.

    Attributes:
        says: what is seen in it.
        model: the one to start from.
        data: of the section of the job, without its path.
        task: where the job names one.
        why: a reason for each of some choices.
    """

    says: str
    model: str
    data: dict[str, Any]
    task: str | None = None
    why: dict[str, str] = field(default_factory=dict)


PUBLISHED = {
    "adult": Published(
        "a table, 5.7 MiB; 15 columns, split by commas, which no line names; 6 of kind number, 8 of kind category; "
        "tells 'class'; train adult.data, test adult.test",
        "table-mlp-small",
        {"kind": "table", "target": "class"},
        "classify",
        {"data.names": "no row names the columns, and 'adult.names' does", "data.target": "by its name"},
    ),
    "california_housing": Published(
        "a table, 1.4 MiB; 10 columns, split by commas, named by line 1; 8 of kind number, 1 of kind category; tells "
        "'median_house_value'",
        "table-mlp-small",
        {"kind": "table", "target": "median_house_value", "header": True},
        "regress",
        {"data.target": "its name holds 'value', and that of no other column does; its cells are numbers"},
    ),
    "cifar10_jpeg": Published(
        "60,000 images, 10 labels (airplane, automobile, bird, … truck; 6,000 each), 32x32 colour, train 50,000, test "
        "10,000",
        "resnet20",
        {"kind": "image"},
    ),
    "douban_book_review": Published(
        "20,000 + 8,000 + 8,000 texts, 2 labels (0 50 %, 1 50 %), 1 to 706 characters, TSV",
        "ngrams-short",
        {"kind": "text", "text": "text_a", "label": "label", "header": True, "pieces": "characters"},
        why={"data.text": "by the header"},
    ),
    "english_novels_94": Published(
        "94 files *.txt, 70.9 MiB of text",
        "gpt-nano",
        {"kind": "language", "files": "**/*.txt"},
    ),
    "fsdd": Published(
        "3,000 recordings, 10 labels (0, 1, 2, … 9; 300 each), 0.2 to 1.0 s, 0.4 s in the middle, 8,000 samples a "
        "second",
        "speech-tiny",
        {"kind": "audio", "names": "{label}_{group}_{index}"},
        why={"data.names": "label 10 values, group 6 values, index 50 values"},
    ),
    "mnist": Published(
        "70,000 images, 10 labels (0, 1, 2, … 9; 6,313 to 7,877 each), 28x28 gray, arrays (test 10,000, train 60,000)",
        "resnet20",
        {"kind": "image"},
    ),
    "sst2": Published(
        "6,920 + 872 + 1,821 texts, 2 labels (0 48 %, 1 52 %), 2 to 271 characters, TSV",
        "ngrams",
        {"kind": "text", "text": 1, "label": 2, "header": False, "pieces": "characters"},
        why={"data.text": "the longest cells, and the fewest different values"},
    ),
    "tinyshakespeare": Published(
        "one file, 1.1 MiB of text",
        "gpt-nano",
        {"kind": "language", "files": "input.txt", "split_by": "position"},
        why={"data.files": "SOURCE.txt tells of the data", "data.split_by": "too few documents to deal"},
    ),
    "wikitext2_valid_test": Published(
        "2 files *.txt, 2.3 MiB of text",
        "gpt-nano",
        {"kind": "language", "files": "**/*.txt", "split_by": "position"},
        why={"data.split": "files are named after test and validation, and none after what is trained on"},
    ),
}


@pytest.fixture
def folder(name: str) -> Path:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the shared data set {name} is not here")
    return SHARED.resolve() / name


def test_every_data_set_that_is_here_stands_in_the_table() -> None:
    if not SHARED.is_dir():
        pytest.skip("no shared data is here")
    others = {"tokenizers"} | {path.name for path in SHARED.glob("ckpt_*")}
    assert {path.name for path in SHARED.iterdir() if path.is_dir()} - others <= PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_seen_and_chosen(name: str, folder: Path) -> None:
    wanted, found = PUBLISHED[name], look(folder)
    assert found.says.endswith(f": {wanted.says}")
    assert (found.job["model"], found.job.get("task")) == (wanted.model, wanted.task)
    data = {key: value for key, value in found.job["data"].items() if key not in {"path", "names"}}
    names = {"names": found.job["data"]["names"]} if "names" in wanted.data else {}
    assert {**data, **names} == wanted.data
    for choice, why in wanted.why.items():
        assert why in found.why[choice], choice
