"""Tables of texts with labels into a store: read, drop copies, split, cut into word pieces.

Memory holds the texts and their tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from thrifty.data.corpus import TOKENIZER_TEXT_BYTES
from thrifty.data.draft import Draft
from thrifty.data.inputs import DUPLICATE, DUPLICATE_ACROSS, Reject, count_reasons, reject_lines
from thrifty.data.inventory import Inventory, read_unchanged
from thrifty.data.labels import in_order
from thrifty.data.language import TOKENIZER_FILE
from thrifty.data.split import HELD_OUT, rank, split_by_count, split_of
from thrifty.data.teller import Teller
from thrifty.data.text_rows import Columns, Row, find_columns, read_rows
from thrifty.data.word_pieces import UNKNOWN, encode_texts, keep_pieces, learn_pieces, read_pieces
from thrifty.errors import DataError
from thrifty.spec import LENGTH_MULTIPLE, SPLITS, Cleaning, Dataset, TextData
from thrifty.spec.events import Emit
from thrifty.spec.units import format_bytes

# Longest length that a job gets by itself: attention costs by its square, and BERT's own is 512 (Devlin et al. 2019).
LONGEST = 512
# so many of the training texts are read whole
READ_WHOLE = 0.999
# About 25 tokens of text for each piece: one that is seen less often is hardly learned. Never over BERT's 30,000.
TEXT_BYTES_A_PIECE, FEWEST_PIECES, MOST_PIECES = 100, 1024, 30_000
NOT_A_SPLIT = "not named after a split"
ONLY_HELD_OUT = "label not in the training split"


@dataclass(frozen=True, slots=True)
class _Sample:
    """A row with its place: the split its file says, or training where no file does; its rank in the seeded order."""

    row: Row
    split: str
    rank: bytes
    order: int


def prepare_texts(data: TextData, inventory: Inventory, *, seed: int, draft: Draft, emit: Emit) -> Dataset:
    """Write the tokens, labels, word pieces and rejects of a data set of texts into a draft; return what it holds.

    Arrays of each split: ``tokens``, all texts end to end, unsigned; ``starts`` int64 [N + 1], where each begins and
    the last ends; ``y`` int64 [N], their labels.

    Raises:
        DataError: there are no tables, no columns of text and label, or fewer than two labels to tell apart.
        StorageError: the cache has no room.
    """
    given, rejects = _splits_of(data, inventory)
    columns = _columns_of(data, inventory, given)
    samples, unread = _read_all(data, inventory, given, columns, seed)
    kept, copies, conflicting = _find_copies(samples)
    missing = tuple(part for part in HELD_OUT if part not in given.values())
    kept, splits, few = _deal(data, kept, missing)
    rejects = [*inventory.rejects, *rejects, *unread, *conflicting, *few]
    kept, labels, odd = _check_labels(data, kept, splits, rejects)
    rejects += odd
    rejects += _reject_copies(copies, kept, splits, missing)
    parts = {part: [sample for sample in kept if splits[sample.order] == part] for part in SPLITS}
    _check_parts(data, parts)

    notes = [columns.says]
    if missing and set(given.values()) != {""}:
        notes.append(f"no file is named after {' and '.join(missing)}: dealt from the training rows")
    tokenizer, flat = _tokenize(data, inventory, parts, notes, emit)
    length = _length(data, flat["train"].lengths, notes)
    cut_texts = {part: int((each.lengths > length).sum()) for part, each in flat.items()}
    shorter = {part: each.cut(length) for part, each in flat.items()}
    _write(draft, shorter, parts, labels, tokenizer)
    _say_unknown(tokenizer, shorter, notes)

    draft.write("rejects.jsonl", reject_lines(rejects))
    reasons = count_reasons(rejects)
    trained = Counter(sample.row.label for sample in parts["train"])
    return Dataset(
        kind="text",
        task="classify",
        key=inventory.key,
        counts={part: len(each) for part, each in parts.items()},
        labels=labels,
        label_counts={label: trained[label] for label in labels},
        shape=(length,),
        mean=(),
        std=(),
        crop="none",
        vocabulary=tokenizer.get_vocab_size(),
        tokens={part: len(each.tokens) for part, each in shorter.items()},
        text_bytes={part: sum(len(sample.row.text.encode()) for sample in each) for part, each in parts.items()},
        source_bytes=sum(file.size for file in inventory.files),
        stored_bytes=draft.stored_bytes(),
        cleaning=Cleaning(
            seen=len(kept) + len(rejects),
            kept=len(kept),
            rejected=reasons,
            duplicates=reasons.get(DUPLICATE, 0),
            across_splits=reasons.get(DUPLICATE_ACROSS, 0),
            repaired={f"cut to {length} tokens, {part}": count for part, count in cut_texts.items() if count},
            notes=tuple(notes),
        ),
        lengths={part: _histogram(each.lengths, length) for part, each in shorter.items()},
    )


def _splits_of(data: TextData, inventory: Inventory) -> tuple[dict[str, str], list[Reject]]:
    """The split of each file to read: what its name says, or nothing for all where the names say nothing."""
    if not inventory.files:
        found = ", ".join(f"{count} {reason}" for reason, count in count_reasons(inventory.rejects).items())
        raise DataError(
            f"'{data.path}' holds no table of texts ({found or 'it is empty'})",
            mend="Rows of text and label lie in .tsv, .csv or .jsonl files.",
        )
    if data.path.is_file():
        return {inventory.files[0].name: ""}, []
    named = {file.name: split_of(file.name) for file in inventory.files}
    if not any(named.values()):
        return named, []
    given = {name: part for name, part in named.items() if part}
    if "train" not in given.values():
        raise DataError(
            f"'{data.path}' has files for {' and '.join(sorted(set(given.values())))} and none to train on",
            mend="Name one train.tsv, or give the path of a single file to be split.",
        )
    return given, [Reject(name, NOT_A_SPLIT) for name, part in named.items() if not part]


def _columns_of(data: TextData, inventory: Inventory, given: Mapping[str, str]) -> Columns:
    """The columns, found in the first file to train on; all files have them."""
    first = next(file for file in inventory.files if given.get(file.name) in {"train", ""})
    return find_columns(data, first.name, read_unchanged(first, inventory.hashes[first.name]))


def _read_all(
    data: TextData, inventory: Inventory, given: Mapping[str, str], columns: Columns, seed: int
) -> tuple[list[_Sample], list[Reject]]:
    samples: list[_Sample] = []
    rejects: list[Reject] = []
    for file in inventory.files:
        if file.name not in given:
            continue
        raw = read_unchanged(file, inventory.hashes[file.name])
        for row in read_rows(data, file.name, raw, columns):
            if isinstance(row, Reject):
                rejects.append(row)
            else:
                place = rank(seed, hashlib.sha256(row.text.encode()).hexdigest(), row.name)
                samples.append(_Sample(row, given[file.name] or "train", place, len(samples)))
            if len(samples) > data.max_rows:
                raise DataError(
                    f"'{data.path}' has over {data.max_rows:,} rows, the limit of data.max_rows",
                    mend="Raise it where there is memory for all texts, or take a part.",
                )
    return samples, rejects


def _find_copies(samples: Sequence[_Sample]) -> tuple[list[_Sample], list[tuple[_Sample, _Sample]], list[Reject]]:
    """Group rows of equal text: those to keep, (copy, kept one) for the rest, and those under several labels.

    Of equal rows the one furthest towards the held-out splits is kept, and of those the one of lowest rank.
    """
    groups: dict[str, list[_Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.row.text].append(sample)
    kept, copies, rejects = [], [], []
    for group in groups.values():
        labels = in_order({sample.row.label for sample in group})
        if len(labels) > 1:
            reason = f"same text under labels {', '.join(labels[:-1])} and {labels[-1]}"
            rejects += [Reject(sample.row.name, reason) for sample in group]
            continue
        first = min(group, key=lambda sample: ((*HELD_OUT, "train").index(sample.split), sample.rank))
        kept.append(first)
        copies += [(sample, first) for sample in group if sample is not first]
    return sorted(kept, key=lambda sample: sample.order), copies, rejects


def _deal(
    data: TextData, kept: Sequence[_Sample], missing: Sequence[str]
) -> tuple[list[_Sample], dict[int, str], list[Reject]]:
    """Give every row its split: its file's, or, of the training rows, the splits that no file gives, label by label."""
    splits = {sample.order: sample.split for sample in kept}
    if not missing:
        return list(kept), splits, []
    by_label: dict[str, dict[int, bytes]] = defaultdict(dict)
    for sample in kept:
        if sample.split == "train":
            by_label[sample.row.label][sample.order] = sample.rank
    few: set[str] = set()
    for label, ranks in by_label.items():
        if len(ranks) <= len(missing):
            few.add(label)
        else:
            dealt = split_by_count({str(order): place for order, place in ranks.items()}, data.split, missing)
            splits |= {int(order): part for order, part in dealt.items()}
    # training alone is no use: such a label could be learned and never be checked
    reason = f"label of under {len(missing) + 1} rows"
    lone = {sample.order for sample in kept if sample.row.label in few and sample.split == "train"}
    rejects = [Reject(s.row.name, reason, f": {s.row.label[:50]}") for s in kept if s.order in lone]
    return [sample for sample in kept if sample.order not in lone], splits, rejects


def _check_labels(
    data: TextData, kept: Sequence[_Sample], splits: Mapping[int, str], rejects: Sequence[Reject]
) -> tuple[list[_Sample], tuple[str, ...], list[Reject]]:
    """The labels of the training split, in order; rows with another one are rejects."""
    labels = in_order({sample.row.label for sample in kept if splits[sample.order] == "train"})
    if len(labels) < 2:
        found = f"one label only, '{labels[0]}'" if labels else "no labels"
        aside = ", ".join(f"{count:,} {reason}" for reason, count in count_reasons(rejects).items())
        beside = f"; put aside: {aside}" if aside else ""
        raise DataError(
            f"the training rows of '{data.path}' have {found}: there is nothing to tell apart{beside}",
            mend="Name the column of the labels: data.label.",
        )
    known = set(labels)
    odd = [sample for sample in kept if sample.row.label not in known]
    rejects = [Reject(sample.row.name, ONLY_HELD_OUT, f": {sample.row.label[:50]}") for sample in odd]
    return [sample for sample in kept if sample.row.label in known], labels, rejects


def _reject_copies(
    copies: Iterable[tuple[_Sample, _Sample]],
    kept: Iterable[_Sample],
    splits: Mapping[int, str],
    missing: Sequence[str],
) -> list[Reject]:
    """Tell the copies that would have stood in their original's own split from those in another."""
    ends: dict[tuple[str, str], bytes] = {}
    for sample in kept:
        if sample.split == "train":
            place = (sample.row.label, splits[sample.order])
            ends[place] = max(ends.get(place, b""), sample.rank)
    rejects = []
    for copy, original in copies:
        own = copy.split
        if own == "train":
            own = next((part for part in missing if copy.rank <= ends.get((copy.row.label, part), b"")), "train")
        reason = DUPLICATE if own == splits[original.order] else DUPLICATE_ACROSS
        rejects.append(Reject(copy.row.name, reason, f": {original.row.name}"))
    return rejects


def _check_parts(data: TextData, parts: Mapping[str, Sequence[_Sample]]) -> None:
    for part, samples in parts.items():
        if not samples:
            raise DataError(
                f"no row of '{data.path}' is left for the {part} split",
                mend="Leave the file out to have the split dealt from the training rows, or mend its rows.",
            )


@dataclass(frozen=True)
class _Flat:
    """Texts end to end: ``tokens`` uint32 [L] and the length of each, int64 [N]."""

    tokens: np.ndarray
    lengths: np.ndarray

    def cut(self, length: int) -> _Flat:
        """Cut the texts to ``length`` tokens, the last mark of each kept."""
        if not (self.lengths > length).any():
            return self
        ends = np.cumsum(self.lengths)
        place = np.arange(len(self.tokens)) - np.repeat(ends - self.lengths, self.lengths)
        from_end = np.repeat(ends, self.lengths) - np.arange(len(self.tokens))
        kept = (place < length - 1) | (from_end == 1)
        return _Flat(self.tokens[kept], np.minimum(self.lengths, length))


def _tokenize(
    data: TextData, inventory: Inventory, parts: Mapping[str, Sequence[_Sample]], notes: list[str], emit: Emit
) -> tuple[Tokenizer, dict[str, _Flat]]:
    """Learn or read the word pieces, and cut the texts into them."""
    teller = Teller(sum(map(len, parts.values())), emit, "rows")
    if data.tokenizer is None:
        tokenizer = _learned(data, parts["train"], notes)
        return tokenizer, {part: _flat(tokenizer, samples, teller) for part, samples in parts.items()}
    name = data.tokenizer.name
    tokenizer = read_pieces(inventory.tokenizer, name)
    train = _flat(tokenizer, parts["train"], teller)
    if data.cut_vocabulary:
        used, numbers = np.unique(train.tokens, return_inverse=True)
        whole, tokenizer = tokenizer, keep_pieces(tokenizer, used.tolist(), name)
        places = tokenizer.get_vocab()
        renumbered = [places[str(whole.id_to_token(int(number)))] for number in used]
        train = _Flat(np.array(renumbered, np.uint32)[numbers], train.lengths)
        notes.append(
            f"vocabulary {tokenizer.get_vocab_size():,}, cut from the {whole.get_vocab_size():,} of {name}: what the "
            "training split uses"
        )
    held_out = {part: _flat(tokenizer, parts[part], teller) for part in SPLITS if part != "train"}
    return tokenizer, {"train": train, **held_out}


def _learned(data: TextData, samples: Sequence[_Sample], notes: list[str]) -> Tokenizer:
    text_bytes = sum(len(sample.row.text.encode()) for sample in samples)
    wanted = data.vocabulary or min(max(text_bytes // TEXT_BYTES_A_PIECE, FEWEST_PIECES), MOST_PIECES)
    tokenizer = learn_pieces(_training_texts(samples, notes), vocabulary=wanted)
    found = tokenizer.get_vocab_size()
    by = "asked for in the job" if data.vocabulary else f"one for each {TEXT_BYTES_A_PIECE} bytes of training text"
    fewer = ", fewer than that: no more pairs occur twice" if found < wanted else ""
    notes.append(f"vocabulary {found:,} word pieces learned from the training split: {by}{fewer}")
    return tokenizer


def _training_texts(samples: Sequence[_Sample], notes: list[str]) -> Iterator[str]:
    """Texts to learn pieces from: all of the training split, or as much of its seeded order as is enough."""
    read = 0
    for sample in sorted(samples, key=lambda sample: sample.rank):
        if read >= TOKENIZER_TEXT_BYTES:
            notes.append(f"the word pieces were learned from {format_bytes(read)} of the training text")
            return
        read += len(sample.row.text.encode())
        yield sample.row.text


def _flat(tokenizer: Tokenizer, samples: Sequence[_Sample], teller: Teller) -> _Flat:
    def texts() -> Iterator[str]:
        for sample in samples:
            yield sample.row.text
            teller.count(1)

    rows = [np.array(numbers, np.uint32) for numbers in encode_texts(tokenizer, texts())]
    return _Flat(np.concatenate(rows), np.array([len(row) for row in rows], np.int64))


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
    flat: Mapping[str, _Flat],
    parts: Mapping[str, Sequence[_Sample]],
    labels: Sequence[str],
    tokenizer: Tokenizer,
) -> None:
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 1 << 16 else np.uint32)
    draft.reserve(sum(each.tokens.size * dtype.itemsize + each.lengths.size * 16 for each in flat.values()))
    draft.write(TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    number = {label: place for place, label in enumerate(labels)}
    for part, each in flat.items():
        columns = {
            "tokens": each.tokens.astype(dtype),
            "starts": np.concatenate([[0], np.cumsum(each.lengths)]).astype(np.int64),
            "y": np.array([number[sample.row.label] for sample in parts[part]], np.int64),
        }
        for name, array in columns.items():
            with draft.rows(part, name, array.dtype, ()) as file:
                file.append(array)


def _say_unknown(tokenizer: Tokenizer, flat: Mapping[str, _Flat], notes: list[str]) -> None:
    unknown = tokenizer.token_to_id(UNKNOWN)
    shares = {part: float((each.tokens == unknown).mean()) for part, each in flat.items()}
    said = ", ".join(f"{part} {share:.2%}".replace("%", " %") for part, share in shares.items() if share)
    if said:
        notes.append(f"tokens that stand for an unknown word: {said}")


def _histogram(lengths: np.ndarray, longest: int) -> tuple[int, ...]:
    counts = np.bincount((lengths - 1) // LENGTH_MULTIPLE, minlength=longest // LENGTH_MULTIPLE)
    return tuple(int(count) for count in counts)
