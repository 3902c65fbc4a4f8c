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
from thrifty.data import language as language_module
from thrifty.data.language import END_ID, END_TOKEN, encode, load_tokenizer, pieces, train_tokenizer
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
        cut = list(pieces(text))
        parts = [ids for part in encode(tokenizer, [text]) for ids in part.tolist()]
    assert "".join(cut) == text
    assert all(len(piece) <= size for piece in cut)
    offsets = itertools.accumulate(map(len, cut[:-1]))
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
            "utf16.txt": "hello".encode("utf-16"),
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
        "utf16.txt": "not UTF-8 at byte 0",
        "wide.txt": "binary: NUL at byte 1",
        "none.txt": "empty",
        "blank.txt": "empty",
        "long.txt": "too large: 58.6 KiB, over the limit of 48.8 KiB",
    }
    assert len(copies) == 2
    cleaning = store.dataset.cleaning
    assert cleaning.rejected == {"duplicate": 2, "empty": 2, "not UTF-8": 2, "binary": 1, "too large": 1}
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
    monkeypatch.setattr("thrifty.data.documents.TOKENIZER_TEXT_BYTES", 10_000)
    assert "the tokenizer was trained on" in " ".join(run(shelf).dataset.cleaning.notes)


def test_too_few_documents(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "shelf", {"a.txt": novel(1), "b.txt": novel(2), "c.txt": novel(1), "d.txt": ""})
    says = refusal(folder)
    assert "has 2 usable documents; 1 duplicate; 1 empty, and needs 3: a document is never cut across splits" in says
    assert "cut a long one into several" in says


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
