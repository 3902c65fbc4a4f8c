"""Tables of texts into a store: what is kept, dealt, put aside and cut, and what a user is told."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from data_folders import reviews, write_tables, write_texts

from thrifty.data import Store, content_key, prepare
from thrifty.data.texts import chunks
from thrifty.data.texts import rows as text_rows
from thrifty.data.texts.word_pieces import MARKS, encode_texts, load_pieces
from thrifty.errors import DataError
from thrifty.spec import LENGTH_MULTIPLE, SPLITS, TextData
from thrifty.spec.events import Event, Progress, Warned

Rows = list[tuple[str, str]]
GIVEN = {"train.tsv": reviews(120), "dev.tsv": reviews(20, 1), "test.tsv": reviews(20, 2)}


def job(path: Path, **values: Any) -> TextData:
    return TextData.model_validate({"kind": "text", "path": path, **values})


def run(path: Path, *, seed: int = 0, events: list[Event] | None = None, **values: Any) -> Store:
    seen: list[Event] = [] if events is None else events
    return prepare(job(path, **values), seed=seed, cache=path.parent / "cache", emit=seen.append)


def refusal(path: Path, **values: Any) -> str:
    with pytest.raises(DataError) as caught:
        run(path, **values)
    return str(caught.value)


def rejects(store: Store) -> dict[str, str]:
    lines = (store.folder / "rejects.jsonl").read_text().splitlines()
    return {line["path"]: line["reason"] for line in map(json.loads, lines)}


def rows_of(store: Store, split: str) -> Rows:
    """Texts as their pieces spell them, and labels, read back from the arrays."""
    tokens, starts, y = (store.array(split, name) for name in ("tokens", "starts", "y"))
    assert starts[0] == 0 and starts[-1] == len(tokens) and len(starts) == len(y) + 1
    tokenizer = load_pieces(store.folder)
    texts = [tokenizer.decode(tokens[a:b].tolist()) for a, b in itertools.pairwise(starts)]
    return list(zip(texts, (store.dataset.labels[number] for number in y), strict=True))


@pytest.fixture
def given_splits(tmp_path: Path) -> Path:
    return write_tables(tmp_path / "reviews", GIVEN)


def test_given_splits_are_taken_as_they_are(given_splits: Path) -> None:
    events: list[Event] = []
    store = run(given_splits, events=events)
    dataset = store.dataset
    assert dataset.kind == "text"
    assert dataset.counts == {"train": 120, "validation": 20, "test": 20}
    assert dataset.labels == ("bad", "good")
    assert dataset.label_counts == {"bad": 60, "good": 60}
    for part, name in zip(SPLITS, GIVEN, strict=True):
        assert rows_of(store, part) == GIVEN[name]
        assert dataset.tokens[part] == len(store.array(part, "tokens"))
        assert dataset.text_bytes[part] == sum(len(text) for text, _ in GIVEN[name])
    assert events[-1] == Progress("prepare", 160, 160, "rows")
    assert dataset.cleaning.seen == dataset.cleaning.kept == 160
    assert dataset.stored_bytes == sum(path.stat().st_size for path in store.folder.glob("*.npy"))
    assert run(given_splits).folder == store.folder


def test_texts_are_marked_and_their_lengths_are_told(given_splits: Path) -> None:
    store = run(given_splits)
    tokenizer, starts = load_pieces(store.folder), store.array("train", "starts")
    assert store.array("train", "tokens").dtype == np.uint16
    marks = [tokenizer.token_to_id(mark) for mark in ("[CLS]", "[SEP]")]
    tokens = store.array("train", "tokens")
    assert [tokens[starts[:-1]].tolist(), tokens[starts[1:] - 1].tolist()] == [[mark] * 120 for mark in marks]
    lengths = np.diff(starts)
    (longest,) = store.dataset.shape
    assert longest % LENGTH_MULTIPLE == 0 and longest - LENGTH_MULTIPLE < lengths.max() <= longest
    told = store.dataset.lengths["train"]
    assert len(told) == longest // LENGTH_MULTIPLE
    assert told == tuple(((lengths > 8 * n) & (lengths <= 8 * n + 8)).sum() for n in range(len(told)))
    assert store.dataset.vocabulary == tokenizer.get_vocab_size()


def test_splits_are_dealt_label_by_label_where_no_file_says(tmp_path: Path) -> None:
    path = write_tables(tmp_path / "reviews", {"all.tsv": reviews(100)})
    store = run(path, length=64)
    assert store.dataset.counts == {"train": 80, "validation": 10, "test": 10}
    assert store.dataset.label_counts == {"bad": 40, "good": 40}
    assert sorted(row for part in SPLITS for row in rows_of(store, part)) == sorted(reviews(100))
    alone = run(path / "all.tsv", length=64)
    assert [rows_of(alone, part) for part in SPLITS] == [rows_of(store, part) for part in SPLITS]
    assert rows_of(run(path, seed=1, length=64), "test") != rows_of(store, "test")


def test_a_split_that_no_file_gives_is_dealt_from_the_training_rows(tmp_path: Path) -> None:
    path = write_tables(tmp_path / "reviews", {"train.tsv": reviews(100), "valid.tsv": reviews(20, 1)})
    store = run(path, split={"test": 0.2})
    assert store.dataset.counts == {"train": 80, "validation": 20, "test": 20}
    assert rows_of(store, "validation") == reviews(20, 1)
    assert "no file is named after test: dealt from the training rows" in store.dataset.cleaning.notes


def test_copies_are_kept_once_and_held_out(tmp_path: Path) -> None:
    shared, other = ("music film music film music", "good"), ("story story film story story", "good")
    parts = {
        "train.tsv": [*GIVEN["train.tsv"], shared, shared, other, GIVEN["train.tsv"][0]],
        "dev.tsv": [*GIVEN["dev.tsv"], shared],
        "test.tsv": [*GIVEN["test.tsv"], shared, (other[0], "bad")],
    }
    store = run(write_tables(tmp_path / "reviews", parts))
    assert store.dataset.counts == {"train": 120, "validation": 20, "test": 21}
    assert shared in rows_of(store, "test")
    assert store.dataset.cleaning.duplicates == 1
    assert store.dataset.cleaning.across_splits == 3
    assert rejects(store)["dev.tsv:21"] == "duplicate across splits: test.tsv:21"
    minds = "same text under labels bad and good"
    assert rejects(store)["train.tsv:123"] == rejects(store)["test.tsv:22"] == minds
    assert {line for line in (1, 124) if f"train.tsv:{line}" in rejects(store)} in ({1}, {124})


def test_copies_in_dealt_splits_are_told_apart(tmp_path: Path) -> None:
    rows = reviews(60)
    store = run(write_tables(tmp_path / "reviews", {"all.tsv": rows * 2}))
    assert store.dataset.cleaning.kept == 60
    cleaning = store.dataset.cleaning
    assert cleaning.duplicates + cleaning.across_splits == 60
    assert cleaning.duplicates > 0 and cleaning.across_splits > 0


def test_every_reject_is_counted_and_kept(tmp_path: Path) -> None:
    parts = {
        "train.tsv": [*GIVEN["train.tsv"], ("", "good"), ("no label", "")],
        "dev.tsv": [*GIVEN["dev.tsv"], ("a word on the actors", "awful")],
        "test.tsv": GIVEN["test.tsv"],
        "extra.tsv": GIVEN["test.tsv"],
        "notes.md": [("where it is from", "")],
    }
    events: list[Event] = []
    store = run(write_tables(tmp_path / "reviews", parts), events=events)
    assert rejects(store) == {
        "train.tsv:121": "empty text",
        "train.tsv:122": "empty label",
        "dev.tsv:21": "label not in the training split: awful",
        "extra.tsv": "not named after a split",
        "notes.md": "not a TSV, CSV, JSONL or Parquet file",
    }
    assert store.dataset.cleaning.seen == 160 + 5
    assert [event.message.split(";")[0] for event in events if isinstance(event, Warned)] == [
        "5 of 165 rows are not used"
    ]


def test_a_label_of_too_few_rows_to_be_checked_is_put_aside(tmp_path: Path) -> None:
    store = run(write_tables(tmp_path / "reviews", {"all.tsv": [*reviews(60), ("a slip of the pen", "goood")]}))
    assert store.dataset.labels == ("bad", "good")
    assert rejects(store) == {"all.tsv:61": "label of under 3 rows: goood"}


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    long = (" ".join(["music"] * 700), "good")
    parts = {**GIVEN, "dev.tsv": [*GIVEN["dev.tsv"], long]}
    store = run(write_tables(tmp_path / "reviews", parts))
    (longest,) = store.dataset.shape
    assert longest <= 32
    assert store.dataset.cleaning.repaired == {f"cut to {longest} tokens, validation": 1}
    lengths = np.diff(store.array("validation", "starts"))
    assert lengths[-1] == longest
    end = load_pieces(store.folder).token_to_id("[SEP]")
    assert store.array("validation", "tokens")[-1] == end
    asked = run(tmp_path / "reviews", length=12)
    assert asked.dataset.shape == (16,)
    assert "length 16: 12 was asked for, rounded up to a multiple of 8" in asked.dataset.cleaning.notes
    assert np.diff(asked.array("train", "starts")).max() == 16
    whole = parts | {"train.tsv": [*GIVEN["train.tsv"], *((f"{long[0]} {n}", "bad") for n in range(9))]}
    assert run(write_tables(tmp_path / "long", whole)).dataset.shape == (512,)


def test_pieces_are_learned_from_the_training_split_alone(tmp_path: Path) -> None:
    parts = {**GIVEN, "test.tsv": [("zyzzyva zyzzyva", "good"), *GIVEN["test.tsv"]]}
    store = run(write_tables(tmp_path / "reviews", parts), vocabulary=200)
    vocabulary = load_pieces(store.folder).get_vocab()
    assert len(vocabulary) <= 200 and set(vocabulary) >= set(MARKS)
    assert not any("zyz" in piece for piece in vocabulary)
    assert any(note.startswith("tokens that stand for an unknown word: test") for note in store.dataset.cleaning.notes)


def test_pieces_of_a_file_and_what_the_data_uses_of_them(tmp_path: Path) -> None:
    path = write_tables(tmp_path / "reviews", GIVEN)
    words = sorted({word for rows in GIVEN.values() for text, _ in rows for word in text.split()})
    vocabulary = [*MARKS, *(f"unused{n}" for n in range(300)), *words]
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(vocabulary), encoding="utf-8")
    whole = run(path, tokenizer=file)
    assert whole.dataset.vocabulary == len(vocabulary)
    small = run(path, tokenizer=file, cut_vocabulary=True)
    trained = {word for text, _ in GIVEN["train.tsv"] for word in text.split()}
    assert small.dataset.vocabulary == len(MARKS) + len(trained)
    assert [rows_of(each, "train") for each in (whole, small)] == [GIVEN["train.tsv"]] * 2
    assert small.dataset.shape == whole.dataset.shape
    cut = next(note for note in small.dataset.cleaning.notes if "cut from" in note)
    assert f"vocabulary {small.dataset.vocabulary:,}, cut from the {len(vocabulary):,} of vocab.txt" in cut
    (again,) = encode_texts(load_pieces(small.folder), [GIVEN["train.tsv"][0][0]])
    assert again == small.array("train", "tokens")[: len(again)].tolist()


def test_the_key_is_of_contents_wherever_they_lie(tmp_path: Path) -> None:
    def key(path: Path, **values: Any) -> str:
        return content_key(job(path, **values), seed=0, cache=tmp_path / "cache")

    one, two = (write_tables(tmp_path / name / "reviews", GIVEN) for name in ("one", "two"))
    files = [tmp_path / name / "vocab.txt" for name in ("one", "two")]
    for file in files:
        file.write_text("\n".join([*MARKS, "film"]))
    assert key(one) == key(two)
    assert key(one, tokenizer=files[0]) == key(two, tokenizer=files[1]) != key(one)
    before = key(one, tokenizer=files[0])
    files[0].write_text("\n".join([*MARKS, "films"]))
    assert key(one, tokenizer=files[0]) != before
    assert len({key(one), key(one / "train.tsv"), key(one, length=16), key(one, header=False)}) == 4


def test_what_cannot_be_learned_from_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no table of texts (it is empty)" in refusal(empty)
    assert "holds no table of texts (1 not in a class folder)" in refusal(
        write_tables(tmp_path / "notes", {"a.txt": reviews(9)})
    )
    assert "there is no data folder" in refusal(tmp_path / "nowhere")
    held_out = write_tables(tmp_path / "held", {"dev.tsv": reviews(9), "test.tsv": reviews(9, 1)})
    assert "has files for test and validation and none to train on" in refusal(held_out)
    one = write_tables(tmp_path / "one", {"all.tsv": [(text, "good") for text, _ in reviews(30)]})
    assert "have one label only, 'good': there is nothing to tell apart" in refusal(one)
    few = write_tables(tmp_path / "few", {"all.tsv": reviews(4)})
    assert "have no labels: there is nothing to tell apart; put aside: 4 label of under 3 rows" in refusal(few)
    latin = tmp_path / "latin.tsv"
    latin.write_bytes("schöner film\tgut\n".encode("latin-1") * 9)
    assert "has no row that can be read. A row holds a text and its label, in UTF-8." in refusal(latin)
    ragged = tmp_path / "ragged.tsv"
    ragged.write_text("text\tlabel\n" + "a\tfine\tfilm\tgood\n" * 7)
    assert "have no labels: there is nothing to tell apart; put aside: 7 ragged row" in refusal(ragged)
    copied = {**GIVEN, "dev.tsv": GIVEN["test.tsv"]}
    assert "is left for the validation split" in refusal(write_tables(tmp_path / "copied", copied))
    given = write_tables(tmp_path / "given", GIVEN)
    assert "has over 50 rows, the limit of data.max_rows" in refusal(given, max_rows=50)
    (tmp_path / "vocab.txt").write_text("a")
    assert "Did you mean 'vocab.txt'?" in refusal(given, tokenizer=tmp_path / "vocb.txt")
    assert "tokenizer 'vocab.txt' has no piece '[PAD]'" in refusal(given, tokenizer=tmp_path / "vocab.txt")


SAYS = ("不好看，浪费时间", "很好看，值得一读")
CHINESE = [(f"这本书{SAYS[good]}，第{at}章", str(good)) for at in range(60) for good in (0, 1)]


@pytest.mark.parametrize(
    ("encoding", "says"), [("gb18030", "read as gb18030"), ("utf-16", "read as utf-16-le"), ("utf-8", "")]
)
def test_tables_of_any_encoding(tmp_path: Path, encoding: str, says: str) -> None:
    content = "".join(f"{text}\t{label}\n" for text, label in CHINESE)
    store = run(write_texts(tmp_path / "books", {"all.tsv": content.encode(encoding)}))
    notes = " ".join(store.dataset.cleaning.notes)
    assert (f"all.tsv {says}" in notes) == bool(says)
    assert ("read as" in notes) == bool(says)
    found = [text.replace(" ", "") for split in SPLITS for text, _ in rows_of(store, split)]
    assert sorted(found) == sorted(text for text, _ in CHINESE)


def test_a_table_of_mixed_encodings_is_told_and_its_odd_rows_are_rejects(tmp_path: Path) -> None:
    odd = "zurück ärgerlich, übel\tbad\n".encode("latin-1")
    rows = "".join(f"schön {text}\t{label}\n" for text, label in reviews(80)).encode()
    store = run(write_texts(tmp_path / "mixed", {"all.tsv": rows + odd}))
    assert rejects(store) == {"all.tsv:81": "not UTF-8 at character 4"}
    assert "all.tsv read as UTF-8, though it is not: mixed encodings: 80 of 81" in " ".join(
        store.dataset.cleaning.notes
    )


def test_parquet_is_a_table(tmp_path: Path) -> None:
    texts, labels = zip(*reviews(120), strict=True)
    table = polars.DataFrame({"id": range(122), "review": [*texts, None, "x"], "stars": [*labels, "good", None]})
    (tmp_path / "films").mkdir()
    table.write_parquet(tmp_path / "films" / "all.parquet")
    store = run(tmp_path / "films")
    assert sum(store.dataset.counts.values()) == 120
    assert rejects(store) == {"all.parquet:121": "empty text", "all.parquet:122": "empty label"}
    (tmp_path / "films" / "all.parquet").write_bytes(b"PAR1 and no more")
    assert "'all.parquet' is no Parquet file that can be read" in refusal(tmp_path / "films")


def test_files_in_class_folders_are_texts(tmp_path: Path) -> None:
    parts = {"train": reviews(60), "test": reviews(20, 1)}
    files = {f"{part}/{label}/{at}.txt": text for part, rows in parts.items() for at, (text, label) in enumerate(rows)}
    more = {"train/bad/x.txt": "\0", "train/good/y.txt": " ", "train/readme.txt": "of films", "imdb.vocab": "film"}
    store = run(write_texts(tmp_path / "imdb", {**files, **more}))
    assert store.dataset.labels == ("bad", "good")
    assert store.dataset.counts["test"] == 20
    assert sum(store.dataset.counts.values()) == 80
    assert rejects(store) == {
        "train/bad/x.txt": "binary: NUL in the text",
        "train/good/y.txt": "empty text",
        "train/readme.txt": "not in a class folder",
        "imdb.vocab": "neither a TSV, CSV, JSONL or Parquet file nor a text file",
    }
    assert "each file is a text, its folder its label" in store.dataset.cleaning.notes


@pytest.mark.parametrize("sort", ["bpe", "unigram", "characters"])
def test_other_pieces_are_learned_and_read_again(tmp_path: Path, sort: str) -> None:
    store = run(write_tables(tmp_path / "reviews", GIVEN), pieces=sort, vocabulary=200)
    assert sorted(rows_of(store, "train")) == sorted(GIVEN["train.tsv"])
    again = run(write_tables(tmp_path / "again" / "reviews", GIVEN), pieces=sort, vocabulary=200)
    assert (again.folder / "tokenizer.json").read_bytes() == (store.folder / "tokenizer.json").read_bytes()


def test_pairs_are_read_marked_and_told(tmp_path: Path) -> None:
    texts = reviews(60)
    rows = [
        {"premise": text, "hypothesis": f"it is\t{label}", "label": str(at % 2)}
        for at, (text, label) in enumerate(texts)
    ]
    (tmp_path / "nli").mkdir()
    (tmp_path / "nli" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = run(tmp_path / "nli")
    assert "text is column 'premise', paired with 'hypothesis', label column 'label'" in store.dataset.cleaning.notes[0]
    tokenizer = load_pieces(store.folder)
    tokens, starts = store.array("train", "tokens"), store.array("train", "starts")
    end = tokenizer.token_to_id("[SEP]")
    for begin, stop in itertools.pairwise(starts):
        first, second = (tokens[begin:stop] == end).nonzero()[0]
        assert second == stop - begin - 1
        assert tokenizer.decode(tokens[begin + first : stop].tolist()).startswith("it is ")
    with pytest.raises(ValueError, match="two of text, text_b and label are column 'a'"):
        job(tmp_path, text="a", text_b="a")
    assert "has no column 'second'. Its columns: premise, hypothesis, label" in refusal(
        tmp_path / "nli", text="premise", text_b="second"
    )


def belonging(count: int) -> str:
    rows = [
        f"{text}\t{label}\tperson {n % 9}\t2024-{1 + n // 31:02d}-{1 + n % 31:02d}"
        for n, (text, label) in enumerate(reviews(count))
    ]
    return "\n".join(["text\tlabel\twho\tday", *rows]) + "\n"


def test_texts_of_one_group_stand_in_one_split(tmp_path: Path) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text(belonging(180))
    store = run(path, split={"group": "who"})
    texts = {text: n % 9 for n, (text, _) in enumerate(reviews(180))}
    people = {part: {texts[text] for text, _ in rows_of(store, part) if text in texts} for part in SPLITS}
    assert sorted(each for part in SPLITS for each in people[part]) == list(range(9))
    assert any("not used: day" in note for note in store.dataset.cleaning.notes)


def test_the_latest_texts_are_held_out(tmp_path: Path) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text(belonging(180))
    store = run(path, split={"time": "day"})
    order = {text: n for n, (text, _) in enumerate(reviews(180))}
    days = {part: [order[text] for text, _ in rows_of(store, part) if text in order] for part in SPLITS}
    assert max(days["train"]) < min(days["validation"]) and max(days["validation"]) < min(days["test"])


def test_texts_that_belong_to_nothing_are_told(tmp_path: Path) -> None:
    path = tmp_path / "reviews.tsv"
    path.write_text(belonging(180).replace("person 4", "", 1))
    assert run(path, split={"group": "who"}).dataset.cleaning.rejected["no group"] == 1
    assert "no column 'hwo'" in refusal(path, split={"group": "hwo"})
    assert "split: its group or time is column 7" in refusal(path, split={"time": 7})
    folder = write_texts(tmp_path / "folders", {"pos/1.txt": "good " * 9, "neg/1.txt": "bad " * 9})
    assert "data.split names the column 'who'" in refusal(folder, split={"group": "who"})


DIRTY = (
    "text\tlabel\tby\n"
    + "".join(f"{text}\t{label}\t{number}\n" for number, (text, label) in enumerate(reviews(3000)))
    + "ragged\n\tgood\tx\nfine\t\tx\na\0b\tgood\tx\n"
    + "".join(f"{text}\t{label}\t{number}\n" for number, (text, label) in enumerate(reviews(60)))
    + "in two minds\tgood\tx\nin two minds\tbad\tx\nalone\tunique\tx\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("dirty", [False, True], ids=["clean", "dirty"])
def test_a_store_is_the_same_however_its_rows_were_checked_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dirty: bool
) -> None:
    path = tmp_path / "reviews"
    path.mkdir()
    raw = DIRTY.encode() + b"caf\xe9\tgood\tx\n"
    (path / "all.tsv").write_bytes(raw if dirty else b"".join(raw.splitlines(keepends=True)[:3001]))
    quick = run(path)
    monkeypatch.setattr(text_rows._Reader, "together", lambda *_: None)
    monkeypatch.setattr(chunks, "find_locality", lambda _: None)
    slow = prepare(job(path), seed=0, cache=tmp_path / "another", emit=lambda _: None)
    assert quick.files == slow.files and quick.folder != slow.folder
    assert bool(rejects(quick)) == dirty
    if dirty:
        reasons = quick.dataset.cleaning.rejected
        assert {"ragged row", "empty text", "empty label", "binary", "not UTF-8"} <= set(reasons)
