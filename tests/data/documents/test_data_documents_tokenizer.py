"""Text into tokens: round trips, streams, whole documents, and what a user is told."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_folders import novel, write_texts
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from thrifty.data import Store, prepare
from thrifty.data.documents import tokenizer as language_module
from thrifty.data.documents.tokenizer import END_ID, END_TOKEN, PIECES, cut, encode, load_tokenizer, train_tokenizer
from thrifty.errors import DataError
from thrifty.spec import SPLITS, LanguageData
from thrifty.spec.events import Event, Progress


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer([novel(seed) for seed in range(5)], vocabulary=400)


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "shelf", {f"part{i % 3}/{i:02d}.txt": novel(i, 300 + 40 * i) for i in range(30)})


def run(folder: Path, *, seed: int = 0, events: list[Event] | None = None, **values: Any) -> Store:
    data = LanguageData.model_validate({"kind": "language", "path": folder, "vocabulary": 320, **values})
    seen: list[Event] = [] if events is None else events
    return prepare(data, seed=seed, cache=folder.parent / "cache", emit=seen.append)


def refusal(folder: Path, **values: Any) -> str:
    with pytest.raises(DataError) as caught:
        run(folder, **values)
    return str(caught.value)


def documents(store: Store, split: str) -> list[str]:
    """The texts of a split, read back from its tokens."""
    stream = store.array(split, "tokens")
    assert stream[0] == END_ID
    starts = [*np.flatnonzero(stream == END_ID), len(stream)]
    tokenizer = load_tokenizer(store.folder)
    return [tokenizer.decode(stream[a + 1 : b].tolist()) for a, b in itertools.pairwise(starts)]


@given(text=st.text())
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_text_that_spells_the_end_token_is_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    for each in (tokenizer, load_tokenizer(tmp_path)):
        ids = each.encode(f"a{END_TOKEN}b").ids
        assert END_ID not in ids
        assert each.decode(ids) == f"a{END_TOKEN}b"


@given(text=st.text(alphabet=st.sampled_from("ab1'. \n\t\xa0\u3000é☃"), max_size=300), size=st.integers(8, 40))
def test_a_text_cut_into_pieces_has_the_tokens_of_the_whole(tokenizer: Tokenizer, text: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_module, "_PIECE_CHARACTERS", size)
        patch.setattr(language_module, "_CUT_WINDOW", size // 2)
        found = list(cut([text[:9], text[9:]]))
        parts = [ids for _, part in encode(tokenizer, [("train", [text])]) for ids in part.tolist()]
    assert "".join(found) == text
    assert all(len(piece) <= size for piece in found)
    offsets = itertools.accumulate(map(len, found[:-1]))
    # where no seam is near, only the text itself is promised
    if text and all(language_module._is_seam(text, offset) for offset in offsets):
        assert parts == [END_ID, *tokenizer.encode(text).ids]
    assert tokenizer.decode(parts) == text


def test_the_store_holds_whole_documents_byte_for_byte(shelf: Path) -> None:
    events: list[Event] = []
    store = run(shelf, events=events)
    dataset = store.dataset
    files = {path.read_text(): path.stat().st_size for path in shelf.rglob("*.txt")}
    found = {split: documents(store, split) for split in SPLITS}
    assert sorted(text for texts in found.values() for text in texts) == sorted(files)
    for split in SPLITS:
        stream = store.array(split, "tokens")
        assert stream.dtype == np.uint16
        assert dataset.tokens[split] == len(stream) - 1
        assert dataset.text_bytes[split] == sum(files[text] for text in found[split])
        assert dataset.counts[split] == -(-dataset.tokens[split] // dataset.shape[0])
        assert int(stream.max()) < dataset.vocabulary <= 320
    total = sum(files.values())
    for split in ("validation", "test"):
        assert abs(dataset.text_bytes[split] / total - 0.05) < 0.03
    assert events[-1] == Progress("prepare", 30, 30, "files")


def test_the_tokenizer_learns_from_training_text_alone(shelf: Path) -> None:
    store = run(shelf)
    own = train_tokenizer(documents(store, "train"), vocabulary=320)
    assert own.get_vocab() == load_tokenizer(store.folder).get_vocab()


def test_same_data_same_bytes_in_another_place(shelf: Path, tmp_path: Path) -> None:
    first = run(shelf)
    (tmp_path / "other").mkdir()
    second = run(shelf.rename(tmp_path / "other" / "books"))
    assert first.folder != second.folder
    assert first.files == second.files


def test_what_is_no_text_is_put_aside_with_the_reason(shelf: Path) -> None:
    write_texts(
        shelf,
        {
            "latin.txt": b"caf" + b"\xe9",
            "cut.txt": "hello".encode("utf-16")[:-1],
            "wide.txt": "hello".encode("utf-16-le"),
            "none.txt": "",
            "blank.txt": "\ufeff \n\t",
            "copy.txt": (shelf / "part0" / "00.txt").read_bytes(),
            "marked.txt": b"\xef\xbb\xbf" + (shelf / "part1" / "01.txt").read_bytes(),
            "long.txt": "x" * 60_000,
            "notes.md": "not one of the files",
            ".hidden.txt": "nor this",
        },
    )
    store = run(shelf, max_file_bytes="50kB")
    lines = map(json.loads, (store.folder / "rejects.jsonl").read_text().splitlines())
    found = {line["path"]: line["reason"] for line in lines}
    copies = {name: found.pop(name) for name in list(found) if found[name].startswith("duplicate: ")}
    assert found == {
        "latin.txt": "not UTF-8 at byte 3",
        "cut.txt": "not utf-16-le at byte 10",
        "wide.txt": "binary: NUL at byte 1",
        "none.txt": "empty",
        "blank.txt": "empty",
        "long.txt": "too large: 58.6 KiB, over the limit of 48.8 KiB",
    }
    assert len(copies) == 2
    cleaning = store.dataset.cleaning
    assert cleaning.rejected == {
        "duplicate": 2,
        "empty": 2,
        "not UTF-8": 1,
        "binary": 1,
        "not utf-16-le": 1,
        "too large": 1,
    }
    assert (cleaning.seen, cleaning.kept, cleaning.duplicates) == (38, 30, 2)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "shelf", {f"{i}.txt": b"\xef\xbb\xbf" + novel(i).encode() for i in range(6)})
    store = run(folder)
    assert not any("\ufeff" in text for split in SPLITS for text in documents(store, split))
    assert sum(store.dataset.text_bytes.values()) == store.dataset.source_bytes - 6 * 3


def test_the_length_is_decided_from_the_amount(shelf: Path, tmp_path: Path) -> None:
    assert run(shelf).dataset.shape == (256,)
    few = write_texts(tmp_path / "few", {f"{i}.txt": novel(i, 100) for i in range(12)})
    dataset = run(few).dataset
    assert dataset.shape[0] in {16, 32, 64}
    assert dataset.tokens["train"] >= 64 * dataset.shape[0]
    assert f"length {dataset.shape[0]}, not 256: the training split has" in " ".join(dataset.cleaning.notes)
    assert run(few, length=100).dataset.shape == (100,)
    assert "data.length 50000 is more than the" in refusal(few, length=50_000)


def test_a_small_text_gives_a_small_vocabulary_and_says_so(shelf: Path) -> None:
    dataset = run(shelf, vocabulary=4096).dataset
    assert 300 < dataset.vocabulary < 4096
    assert f"the vocabulary has {dataset.vocabulary:,} tokens, not 4,096" in " ".join(dataset.cleaning.notes)


def test_the_tokenizer_reads_no_more_than_it_needs(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrifty.data.documents.corpus.TOKENIZER_TEXT_BYTES", 10_000)
    assert "the tokenizer was trained on" in " ".join(run(shelf).dataset.cleaning.notes)


def test_few_documents_are_split_by_position(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "shelf", {"a.txt": novel(1), "b.txt": novel(2), "c.txt": novel(1), "d.txt": ""})
    store = run(folder, split={"validation": 0.1, "test": 0.2})
    found = {split: documents(store, split) for split in SPLITS}
    for number, text in enumerate((novel(1), novel(2))):
        parts = [found[split][number] for split in SPLITS]
        assert "".join(parts) == text
        assert [round(len(part) / len(text), 2) for part in parts] == [0.7, 0.1, 0.2]
    says = " ".join(store.dataset.cleaning.notes)
    assert "each document is trained on from its beginning, validation the next 10 %, test the next 20 %" in says
    assert "too little text: nothing is left for the validation split" in refusal(
        write_texts(tmp_path / "word", {"a.txt": "abc"})
    )


def test_no_usable_document(tmp_path: Path) -> None:
    says = refusal(write_texts(tmp_path / "shelf", {"a.txt": b"caf\xe9", "b.txt": " "}))
    assert "has no usable document: 1 empty, 1 not UTF-8; the first: 'a.txt' not UTF-8 at byte 3" in says


def test_files_named_after_splits_are_those(tmp_path: Path) -> None:
    texts = {"wiki.train.txt": novel(1, 4000), "wiki.valid.txt": novel(2), "wiki.test.txt": novel(3)}
    store = run(write_texts(tmp_path / "wiki", texts))
    assert {split: documents(store, split) for split in SPLITS} == {
        "train": [novel(1, 4000)],
        "validation": [novel(2)],
        "test": [novel(3)],
    }
    (tmp_path / "wiki" / "wiki.test.txt").unlink()
    cut = run(tmp_path / "wiki", split={"validation": 0.3, "test": 0.25})
    assert documents(cut, "validation") == [novel(2)]
    assert "".join(documents(cut, "train") + documents(cut, "test")) == novel(1, 4000)


def test_a_held_out_text_that_is_nearly_one_of_training_leaves_training(tmp_path: Path) -> None:
    text = " ".join(f"word{number % 97} and{number}" for number in range(600))
    texts = {"train.a.txt": text.replace("and300", "or300"), "train.b.txt": novel(1, 4000), "valid.txt": text}
    folder = write_texts(tmp_path / "shelf", {**texts, "test.txt": novel(3), "train.c.txt": novel(3)})
    store = run(folder)
    assert store.dataset.cleaning.rejected == {"duplicate across splits": 1, "near copy across splits": 1}
    assert store.dataset.cleaning.across_splits == 2
    assert documents(store, "train") == [novel(1, 4000)]
    assert run(folder, copies="exact").dataset.cleaning.rejected == {"duplicate across splits": 1}


@pytest.mark.parametrize("sort", PIECES)
def test_every_sort_of_pieces_gives_a_text_back(sort: str, tmp_path: Path) -> None:
    texts = [novel(seed) for seed in range(5)] + ["汉字 und\nZeilen\t<|end|>"]
    tokenizer = train_tokenizer(texts, vocabulary=400, pieces=sort)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    read = load_tokenizer(tmp_path)
    for text in texts:
        ids = read.encode(text).ids
        assert END_ID not in ids
        assert read.decode(ids) == text
    assert train_tokenizer(texts, vocabulary=400, pieces=sort).to_str() == tokenizer.to_str()


def test_characters_are_tokens_and_others_one_of_their_own() -> None:
    tokenizer = train_tokenizer(["aab b", "ccc"], vocabulary=260, pieces="characters")
    assert tokenizer.get_vocab() == {END_TOKEN: 0, "\ufffd": 1, " ": 2, "a": 3, "b": 4, "c": 5}
    assert tokenizer.encode("bax c").ids == [4, 3, 1, 2, 5]
    assert tokenizer.decode(tokenizer.encode("bax c").ids) == "ba\ufffd c"


def test_no_file_fits_the_pattern(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "shelf", {f"{i}.md": novel(i) for i in range(4)} | {"x.rst": "x"})
    assert "no file in" in refusal(folder)
    assert "fits data.files '**/*.txt'; it holds 4 *.md, 1 *.rst. Set data.files, such as '**/*.md'." in refusal(folder)
    assert run(folder, files="**/*.md").dataset.cleaning.kept == 4
    (tmp_path / "nothing").mkdir()
    assert "is empty. Put text files into it." in refusal(tmp_path / "nothing")


@pytest.mark.parametrize("content", ["", "{", '{"model": 1}'])
def test_a_damaged_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer '.*tokenizer.json' cannot be read"):
        load_tokenizer(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(tmp_path / "nowhere")


def test_shakespeare(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "../shared/data/tinyshakespeare/input.txt"
    if not source.is_file():
        pytest.skip("the shared Shakespeare text is not here")
    text = source.read_text()
    parts = {f"{i:02d}.txt": text[i * 20_000 : (i + 1) * 20_000] for i in range(len(text) // 20_000 + 1)}
    dataset = run(write_texts(tmp_path / "plays", parts), vocabulary=1024).dataset
    assert sum(dataset.text_bytes.values()) == 1_115_394
    assert 2.3 < dataset.text_bytes["test"] / dataset.tokens["test"] < 3.2
