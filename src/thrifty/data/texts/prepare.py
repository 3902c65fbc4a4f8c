"""Texts with labels into a store: cut into pieces, which are learned where none are given.

Memory holds the texts and their tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from tokenizers import Tokenizer

from thrifty.data.documents.corpus import TOKENIZER_TEXT_BYTES
from thrifty.data.documents.tokenizer import TOKENIZER_FILE
from thrifty.data.draft import Draft
from thrifty.data.inputs import cleaned, count_reasons, reject_lines
from thrifty.data.inventory import Inventory
from thrifty.data.teller import Teller
from thrifty.data.texts.chunks import Chunks, Flat, joined
from thrifty.data.texts.samples import Sample, read_samples
from thrifty.data.texts.word_pieces import END, MARKS, MASK, PAIR_MARK, UNKNOWN, keep_pieces, learn_pieces, read_pieces
from thrifty.errors import DataError
from thrifty.spec import LENGTH_MULTIPLE, SPLITS, Dataset, Task, TextData
from thrifty.spec.events import Emit
from thrifty.spec.units import format_bytes

# Longest length that a job gets by itself: attention costs by its square, and BERT's own is 512 (Devlin et al. 2019).
LONGEST = 512
# so many of the training texts are read whole
READ_WHOLE = 0.999
# About 25 tokens of text for each piece: one that is seen less often is hardly learned. Never over BERT's 30,000.
TEXT_BYTES_A_PIECE, FEWEST_PIECES, MOST_PIECES = 100, 1024, 30_000
_CHARACTERS_AT_ONCE = 1 << 21


def prepare_texts(data: TextData, inventory: Inventory, *, seed: int, draft: Draft, emit: Emit) -> Dataset:
    """Write the tokens, labels, word pieces and rejects of a data set of texts into a draft; return what it holds.

    Arrays of each split: ``tokens``, all texts end to end, unsigned; ``starts`` int64 [N + 1], where each begins and
    the last ends; ``y`` int64 [N], their labels, or where each may have several
    uint8 [N, K], 1 for each that it has.

    Raises:
        DataError: as `read_samples`; or the tokenizer cannot be read.
        StorageError: the cache has no room.
    """
    found = read_samples(data, inventory, seed)
    parts, labels, notes = found.parts, found.labels, list(found.notes)
    tokenizer, flat = _tokenize(data, inventory, parts, notes, emit)
    length = _length(data, flat["train"].lengths, notes)
    cut_texts = {part: int((each.lengths > length).sum()) for part, each in flat.items()}
    shorter = {part: each.cut(length) for part, each in flat.items()}
    _write(draft, shorter, parts, labels, tokenizer, data.task)
    _say_unknown(tokenizer, shorter, notes)

    draft.write("rejects.jsonl", reject_lines(found.rejects))
    trained = Counter(label for sample in parts["train"] for label in _labels_of(sample, data.task))
    hides = data.task == "mask"
    return Dataset(
        kind="text",
        task=data.task,
        marks=_marks(tokenizer) if hides else (),
        separator=tokenizer.token_to_id(END) if _pairs(parts["train"]) else 0,
        key=inventory.key,
        counts={part: len(each) for part, each in parts.items()},
        labels=() if hides else labels,
        label_counts={} if hides else {label: trained[label] for label in labels},
        shape=(length,),
        mean=(),
        std=(),
        crop="none",
        vocabulary=tokenizer.get_vocab_size(),
        tokens={part: len(each.tokens) for part, each in shorter.items()},
        text_bytes={part: sum(len(sample.row.text.encode()) for sample in each) for part, each in parts.items()},
        source_bytes=sum(file.size for file in inventory.files),
        stored_bytes=draft.stored_bytes(),
        cleaning=cleaned(
            sum(map(len, parts.values())),
            count_reasons(found.rejects),
            notes,
            {f"cut to {length} tokens, {part}": count for part, count in cut_texts.items() if count},
        ),
        lengths={part: _histogram(each.lengths, length) for part, each in shorter.items()},
    )


def _labels_of(sample: Sample, task: Task) -> Sequence[str]:
    return sample.row.labels if task == "tag" else (sample.row.label,)


def _pairs(samples: Sequence[Sample]) -> bool:
    return any(PAIR_MARK in sample.row.text for sample in samples)


def _marks(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Numbers of the marks, of that first which hides words."""
    numbers = {mark: tokenizer.token_to_id(mark) for mark in (MASK, *MARKS)}
    if numbers[MASK] is None:
        raise DataError(f"the tokenizer has no piece '{MASK}' to hide words by", mend="Leave out data.tokenizer.")
    return tuple(number for number in numbers.values() if number is not None)


def _tokenize(
    data: TextData, inventory: Inventory, parts: Mapping[str, Sequence[Sample]], notes: list[str], emit: Emit
) -> tuple[Tokenizer, dict[str, Flat]]:
    """Learn or read the word pieces, and cut the texts into them."""
    teller = Teller(sum(map(len, parts.values())), emit, "rows")
    if data.tokenizer is None:
        tokenizer = _learned(data, parts["train"], notes)
        chunks = Chunks(tokenizer)
        return tokenizer, {part: _flat(chunks, samples, teller) for part, samples in parts.items()}
    name = data.tokenizer.name
    tokenizer = read_pieces(inventory.tokenizer, name)
    chunks = Chunks(tokenizer)
    train = _flat(chunks, parts["train"], teller)
    if data.cut_vocabulary:
        used, numbers = np.unique(train.tokens, return_inverse=True)
        whole, tokenizer = tokenizer, keep_pieces(tokenizer, used.tolist(), name)
        chunks = Chunks(tokenizer)
        places = tokenizer.get_vocab()
        renumbered = [places[str(whole.id_to_token(int(number)))] for number in used]
        train = Flat(np.array(renumbered, np.uint32)[numbers], train.lengths)
        notes.append(
            f"vocabulary {tokenizer.get_vocab_size():,}, cut from the {whole.get_vocab_size():,} of {name}: what the "
            "training split uses"
        )
    held_out = {part: _flat(chunks, parts[part], teller) for part in SPLITS if part != "train"}
    return tokenizer, {"train": train, **held_out}


def _learned(data: TextData, samples: Sequence[Sample], notes: list[str]) -> Tokenizer:
    text_bytes = sum(len(sample.row.text.encode()) for sample in samples)
    wanted = data.vocabulary or min(max(text_bytes // TEXT_BYTES_A_PIECE, FEWEST_PIECES), MOST_PIECES)
    tokenizer = learn_pieces(
        _training_texts(samples, notes), vocabulary=wanted, pieces=data.pieces, nfkc=data.normalize == "nfkc"
    )
    found = tokenizer.get_vocab_size()
    by = "asked for in the job" if data.vocabulary else f"one for each {TEXT_BYTES_A_PIECE} bytes of training text"
    scarce = "there are no more" if data.pieces == "characters" else "no more pairs occur twice"
    fewer = f", fewer than that: {scarce}" if found < wanted else ""
    sort = {"wordpiece": "word pieces", "characters": "characters"}.get(data.pieces, f"{data.pieces} pieces")
    notes.append(f"vocabulary {found:,} {sort} learned from the training split: {by}{fewer}")
    return tokenizer


def _training_texts(samples: Sequence[Sample], notes: list[str]) -> Iterator[str]:
    """Texts to learn pieces from: all of the training split, or as much of its seeded order as is enough."""
    read = 0
    for sample in sorted(samples, key=lambda sample: sample.rank):
        if read >= TOKENIZER_TEXT_BYTES:
            notes.append(f"the word pieces were learned from {format_bytes(read)} of the training text")
            return
        read += len(sample.row.text.encode())
        yield sample.row.text


def _flat(chunks: Chunks, samples: Sequence[Sample], teller: Teller) -> Flat:
    groups = []
    for group in chunks.encode_groups((sample.row.text for sample in samples), _CHARACTERS_AT_ONCE):
        groups.append(group)
        teller.count(len(group.lengths))
    return joined(groups)


def _length(data: TextData, lengths: np.ndarray, notes: list[str]) -> int:
    """Tokens that texts are cut to, a multiple of 8: as the job says, else so that nearly all stay whole."""
    if data.length is not None:
        asked = _rounded(data.length)
        if asked > data.length:
            notes.append(f"length {asked}: {data.length} was asked for, rounded up to a multiple of {LENGTH_MULTIPLE}")
        return asked
    most = int(np.quantile(lengths, READ_WHOLE, method="higher"))
    rounded = min(_rounded(most), LONGEST)
    share = f"{READ_WHOLE:.1%} of the training texts have at most {most:,} tokens".replace("%", " %")
    why = f", and {LONGEST} is the most unless data.length says so" if rounded < most else ""
    notes.append(f"length {rounded}: {share}{why}")
    return rounded


def _rounded(length: int) -> int:
    return -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def _write(
    draft: Draft,
    flat: Mapping[str, Flat],
    parts: Mapping[str, Sequence[Sample]],
    labels: Sequence[str],
    tokenizer: Tokenizer,
    task: Task,
) -> None:
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32)
    answer_bytes = len(labels) if task == "tag" else 8
    draft.reserve(
        sum(each.tokens.size * dtype.itemsize + each.lengths.size * (8 + answer_bytes) for each in flat.values())
    )
    draft.write(TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    number = {label: place for place, label in enumerate(labels)}
    for part, each in flat.items():
        columns = {
            "tokens": each.tokens.astype(dtype),
            "starts": np.concatenate([[0], np.cumsum(each.lengths)]).astype(np.int64),
            "y": _answers(parts[part], number, task),
        }
        for name, array in columns.items():
            with draft.rows(part, name, array.dtype, array.shape[1:]) as file:
                file.append(array)


def _answers(samples: Sequence[Sample], number: Mapping[str, int], task: Task) -> np.ndarray:
    """The labels of texts by their numbers, int64 [N], or uint8 [N, K] where a text may have several."""
    if task != "tag":
        return np.array([number[sample.row.label] for sample in samples], np.int64)
    y_NK = np.zeros((len(samples), len(number)), np.uint8)
    for y_K, sample in zip(y_NK, samples, strict=True):
        y_K[[number[label] for label in sample.row.labels]] = 1
    return y_NK


def _say_unknown(tokenizer: Tokenizer, flat: Mapping[str, Flat], notes: list[str]) -> None:
    unknown = tokenizer.token_to_id(UNKNOWN)
    shares = {part: float((each.tokens == unknown).mean()) for part, each in flat.items()}
    said = ", ".join(f"{part} {share:.2%}".replace("%", " %") for part, share in shares.items() if share)
    if said:
        notes.append(f"tokens that stand for an unknown word: {said}")


def _histogram(lengths: np.ndarray, longest: int) -> tuple[int, ...]:
    counts = np.bincount((lengths - 1) // LENGTH_MULTIPLE, minlength=longest // LENGTH_MULTIPLE)
    return tuple(int(count) for count in counts)
