"""A tokenizer that is given: documents come back, its end token is found, a lossy one is refused."""

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
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from thrifty.data import Store, prepare
from thrifty.data.documents import tokenizer as language_module
from thrifty.data.documents.given_tokenizer import read_given, try_texts
from thrifty.data.documents.tokenizer import cutting_of, encode, load_tokenizer
from thrifty.data.texts.word_pieces import learn_pieces
from thrifty.errors import DataError, JobError
from thrifty.spec import SPLITS, LanguageData, load_job

TEXTS = [novel(seed) for seed in range(5)]
REAL = Path(__file__).parents[3] / "shared" / "data" / "tokenizers"


def gpt2(*special: str) -> Tokenizer:
    """As GPT-2 has it: pairs of bytes, its mark the last."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False))
    made.add_special_tokens(list(special or ("<|endoftext|>",)))
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


def llama() -> Tokenizer:
    """As Llama has it: a space before each text, bytes for what is unknown, a mark put before each text."""
    alphabet = sorted({*"".join(TEXTS), "\u2581"} - {" "})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256)), *alphabet]
    for word in ("th", "er", "in"):
        tokens += [word, f"\u2581{word[0]}"]
    numbers = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    merges = [(a, b) for a, b in (("t", "h"), ("e", "r"), ("i", "n")) if a + b in numbers]
    made = Tokenizer(models.BPE(numbers, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


SORTS = {"gpt2": gpt2, "llama": llama}


def prepared(folder: Path, tokenizer: Tokenizer, **values: Any) -> Store:
    tokenizer.save(str(folder / "tokenizer.json"))
    shelf = write_texts(folder / "shelf", {f"{i:02d}.txt": novel(i, 300 + 40 * i) for i in range(20)})
    data = LanguageData(kind="language", path=shelf, tokenizer=folder / "tokenizer.json", **values)
    return prepare(data, seed=0, cache=folder / "cache", emit=lambda event: None)


@pytest.mark.parametrize("sort", SORTS)
def test_documents_come_back(sort: str, tmp_path: Path) -> None:
    made = SORTS[sort]()
    store = prepared(tmp_path, made)
    dataset = store.dataset
    assert dataset.vocabulary == made.get_vocab_size()
    assert dataset.end == made.token_to_id({"gpt2": "<|endoftext|>", "llama": "</s>"}[sort])
    assert any("tokenizer.json" in note and str(dataset.end) in note for note in dataset.cleaning.notes)
    tokenizer, found = load_tokenizer(store.folder, dataset.end), []
    for split in SPLITS:
        stream = store.array(split, "tokens")
        assert stream[0] == dataset.end
        begins = [*np.flatnonzero(stream == dataset.end), len(stream)]
        found += [tokenizer.decode(stream[a + 1 : b].tolist()) for a, b in itertools.pairwise(begins)]
        # no mark but the one between documents
        assert len(begins) - 1 == sum((stream == number).sum() for number in _marks(made))
    assert sorted(found) == sorted(each.read_text() for each in (tmp_path / "shelf").iterdir())


def _marks(tokenizer: Tokenizer) -> list[int]:
    return [number for number, each in tokenizer.get_added_tokens_decoder().items() if each.special]


@pytest.mark.parametrize("sort", SORTS)
@given(text=st.text(alphabet=st.sampled_from("there. \n'é☃"), min_size=1, max_size=200), size=st.integers(8, 40))
def test_a_text_cut_into_pieces_has_the_tokens_of_the_whole(sort: str, text: str, size: int) -> None:
    tokenizer, end = READ[sort]
    whole = tokenizer.encode(text, add_special_tokens=False).ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_module, "_PIECE_CHARACTERS", size)
        patch.setattr(language_module, "_CUT_WINDOW", size)
        parts = [part for _, part in encode(tokenizer, [("train", [text])], end, cutting_of(tokenizer))]
    found = np.concatenate(parts).tolist()
    assert found[0] == end
    # where there is no lone space to cut before, a piece is cut anyway
    seams = [
        at
        for at in range(1, len(text) - 1)
        if text[at] == " " and text[at - 1 : at + 2].strip() == text[at - 1 : at + 2]
    ]
    if all(b - a < size for a, b in itertools.pairwise([0, *seams, len(text)])):
        assert found[1:] == whole


READ = {name: read_given(make().to_str().encode(), name) for name, make in SORTS.items()}


def test_the_end_token_is_told_or_found() -> None:
    raw = gpt2("<|pad|>", "<|stop|>").to_str().encode()
    assert read_given(raw, "t.json", "<|stop|>")[1] == 301 - 300 + gpt2().token_to_id("<|endoftext|>")
    with pytest.raises(DataError, match=r"does not tell which token ends a document; its special ones: <\|pad\|>"):
        read_given(raw, "t.json")
    with pytest.raises(DataError, match=r"has no token '<\|stob\|>'.*<\|stop\|>"):
        read_given(raw, "t.json", "<|stob|>")
    with pytest.raises(DataError, match=r"tokenizer 't\.json' cannot be read"):
        read_given(b"{}", "t.json")


def test_a_lossy_tokenizer_is_refused() -> None:
    pieces = learn_pieces([text.lower() for text in TEXTS], vocabulary=300)
    small, _ = read_given(pieces.to_str().encode(), "vocab", "[SEP]")
    with pytest.raises(DataError, match="5 of 5 texts tried do not come back from tokenizer 'vocab'"):
        try_texts(small, [f"{text} And Capitals" for text in TEXTS], "vocab")
    tokenizer, _ = READ["gpt2"]
    assert try_texts(tokenizer, TEXTS, "t.json") == ""


def test_few_lossy_texts_are_told() -> None:
    numbers = {each: number for number, each in enumerate(["<eos>", "<unk>", *"abc "])}
    made = Tokenizer(models.BPE(numbers, [], unk_token="<unk>"))
    made.decoder = decoders.Fuse()
    made.add_special_tokens(["<eos>"])
    tokenizer, end = read_given(made.to_str().encode(), "t.json")
    assert end == 0
    said = try_texts(tokenizer, ["abc", "a b", "a\u2603b"], "t.json")
    assert (
        said
        == "1 of 3 texts tried do not come back from tokenizer 't.json' as they were: 'a☃b' comes back as 'a<unk>b'"
    )


def test_own_is_the_tokenizer_of_the_models_directory(tmp_path: Path) -> None:
    for folder, inside in (("net", ""), ("run", "bundle/")):
        place = tmp_path / folder / inside
        place.mkdir(parents=True)
        (place / "tokenizer.json").write_text(gpt2().to_str())
        job = {"name": "own", "model": f"ours:{folder}", "data": {"kind": "language", "path": "x", "tokenizer": "own"}}
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        found = load_job(tmp_path / "job.yaml").data
        assert isinstance(found, LanguageData) and found.tokenizer == place / "tokenizer.json"
    for model, says in (("gpt-nano", "comes from no directory"), ("ours:empty", "has no tokenizer.json")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "job.yaml").write_text(json.dumps({**job, "model": model}))
        with pytest.raises(JobError, match=says):
            load_job(tmp_path / "job.yaml")


def test_what_does_not_go_with_a_given_one(tmp_path: Path) -> None:
    for values, says in (
        ({"tokenizer": "t.json", "vocabulary": 300}, "tokens that are learned"),
        ({"tokenizer": "t.json", "pieces": "characters"}, "tokens that are learned"),
        ({"end": "</s>"}, "end is a token of the file"),
    ):
        with pytest.raises(ValueError, match=says):
            LanguageData.model_validate({"kind": "language", "path": tmp_path, **values})


@pytest.mark.skipif(not REAL.is_dir(), reason=f"there is no {REAL}")
def test_gpt2s_own() -> None:
    made = Tokenizer(models.BPE.from_file(str(REAL / "gpt2-vocab.json"), str(REAL / "gpt2-merges.txt")))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    tokenizer, end = read_given(made.to_str().encode(), "gpt2")
    assert (end, tokenizer.get_vocab_size()) == (50256, 50257)
    assert tokenizer.encode("Hello world").ids == [15496, 995]
    assert try_texts(tokenizer, [*TEXTS, "<|endoftext|> \u4e2d\u6587 \U0001f600"], "gpt2") == ""
