"""Text files into a store: check, drop copies, split by whole documents, train the tokenizer, encode.

Memory holds one document; tokens go to disk as they are made.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from thrifty.data.draft import Draft
from thrifty.data.inputs import DUPLICATE, InputFile, Reject, count_reasons, list_files, reject_lines
from thrifty.data.inventory import Inventory, read_unchanged
from thrifty.data.language import TOKENIZER_FILE, encode, train_tokenizer
from thrifty.data.split import rank, split_by_bytes
from thrifty.data.teller import Teller
from thrifty.errors import DataError
from thrifty.spec import SPLITS, Cleaning, Dataset, LanguageData
from thrifty.spec.events import Emit
from thrifty.spec.units import format_bytes

LONGEST_DEFAULT, SHORTEST_DEFAULT = 256, 8
DEFAULT_WINDOWS = 64
# Merges of a few thousand pairs change little beyond this much text, and training reads about 10 MB a second.
TOKENIZER_TEXT_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class _Document:
    file: InputFile
    text_bytes: int
    rank: bytes


def prepare_documents(data: LanguageData, inventory: Inventory, *, seed: int, draft: Draft, emit: Emit) -> Dataset:
    """Write the tokens, tokenizer and rejects of a text data set into a draft; return what it holds.

    The stream of a split is the end token, a document, the end token, the next document, …: each token but the
    first is predicted from those before it.

    Raises:
        DataError: there are fewer than three documents, or less text than one window.
        StorageError: the cache has no room.
    """
    documents, rejects = _read_all(inventory, seed)
    rejects = sorted([*inventory.rejects, *rejects], key=lambda reject: reject.name)
    if len(documents) < len(SPLITS):
        raise _too_few(data, documents, rejects)
    sizes = {document.file.name: document.text_bytes for document in documents}
    splits = split_by_bytes({document.file.name: document.rank for document in documents}, sizes, data.split)
    parts = {part: [d for d in documents if splits[d.file.name] == part] for part in SPLITS}
    # two bytes a token, and hardly any tokenizer needs a token for less than two bytes of text
    draft.reserve(sum(sizes.values()))

    notes: list[str] = []
    tokenizer = train_tokenizer(_training_texts(parts["train"], inventory, notes), vocabulary=data.vocabulary)
    draft.write(TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    tokens = _encode_all(parts, inventory, tokenizer, draft, emit)
    vocabulary = tokenizer.get_vocab_size()
    if vocabulary < data.vocabulary:
        notes.append(f"the vocabulary has {vocabulary:,} tokens, not {data.vocabulary:,}: no more pairs occur twice")
    length = _length(data, tokens["train"], notes)

    draft.write("rejects.jsonl", reject_lines(rejects))
    reasons = count_reasons(rejects)
    return Dataset(
        kind="language",
        task="language",
        key=inventory.key,
        counts={part: -(-count // length) for part, count in tokens.items()},
        labels=(),
        label_counts={},
        shape=(length,),
        mean=(),
        std=(),
        crop="none",
        vocabulary=vocabulary,
        tokens=tokens,
        text_bytes={part: sum(document.text_bytes for document in parts[part]) for part in SPLITS},
        source_bytes=sum(file.size for file in inventory.files),
        stored_bytes=draft.stored_bytes(),
        cleaning=Cleaning(
            seen=len(documents) + len(rejects),
            kept=len(documents),
            rejected=reasons,
            duplicates=reasons.get(DUPLICATE, 0),
            across_splits=0,
            notes=tuple(notes),
        ),
    )


def problem(raw: bytes) -> tuple[str, str] | None:
    """Say why a file is no text, as reason and detail; None when it is UTF-8 with something in it.

    >>> problem(b"caf\\xe9")
    ('not UTF-8', ' at byte 3')
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return "not UTF-8", f" at byte {error.start}"
    if (place := raw.find(b"\0")) >= 0:
        return "binary", f": NUL at byte {place}"
    return None if text.removeprefix("\ufeff").strip() else ("empty", "")


def _without_mark(raw: bytes) -> bytes:
    return raw.removeprefix(codecs.BOM_UTF8)


def _text(document: _Document, inventory: Inventory) -> str:
    return _without_mark(read_unchanged(document.file, inventory.hashes[document.file.name])).decode("utf-8")


def _read_all(inventory: Inventory, seed: int) -> tuple[list[_Document], list[Reject]]:
    """Check every file; of documents with the same text the one of lowest rank is kept."""
    rejects: list[Reject] = []
    groups: dict[bytes, list[_Document]] = {}
    for file in inventory.files:
        sha256 = inventory.hashes[file.name]
        raw = read_unchanged(file, sha256)
        if found := problem(raw):
            rejects.append(Reject(file.name, *found))
            continue
        text = _without_mark(raw)
        document = _Document(file, len(text), rank(seed, sha256, file.name))
        groups.setdefault(hashlib.sha256(text).digest(), []).append(document)
    documents = []
    for group in groups.values():
        first = min(group, key=lambda document: document.rank)
        documents.append(first)
        rejects += [Reject(d.file.name, DUPLICATE, f": {first.file.name}") for d in group if d is not first]
    return sorted(documents, key=lambda document: document.file.name), rejects


def _too_few(data: LanguageData, documents: list[_Document], rejects: list[Reject]) -> DataError:
    if not documents and not rejects:
        suffixes: dict[str, int] = {}
        for file in list_files(data.path)[0]:
            suffixes[file.suffix] = suffixes.get(file.suffix, 0) + 1
        if not suffixes:
            return DataError(f"the data folder '{data.path}' is empty", mend="Put text files into it.")
        common = max(suffixes, key=lambda suffix: suffixes[suffix])
        held = ", ".join(f"{count} *{suffix}" for suffix, count in sorted(suffixes.items(), key=lambda i: -i[1])[:5])
        return DataError(
            f"no file in '{data.path}' fits data.files '{data.files}'; it holds {held}",
            mend=f"Set data.files, such as '**/*{common}'.",
        )
    found = "".join(f"; {count} {reason}" for reason, count in count_reasons(rejects).items())
    return DataError(
        f"'{data.path}' has {len(documents)} usable documents{found}, and needs {len(SPLITS)}: a document is never "
        "cut across splits",
        mend="Add files, or cut a long one into several.",
    )


def _training_texts(documents: list[_Document], inventory: Inventory, notes: list[str]) -> Iterator[str]:
    """Texts to train the tokenizer on: all of the training split, or as much of its seeded order as is enough."""
    read = 0
    for document in sorted(documents, key=lambda document: document.rank):
        if read >= TOKENIZER_TEXT_BYTES:
            notes.append(f"the tokenizer was trained on {format_bytes(read)} of the training text")
            return
        read += document.text_bytes
        yield _text(document, inventory)


def _encode_all(
    parts: dict[str, list[_Document]], inventory: Inventory, tokenizer: Tokenizer, draft: Draft, emit: Emit
) -> dict[str, int]:
    """Write the stream of each split; return how many tokens each has to predict."""
    dtype = np.min_scalar_type(tokenizer.get_vocab_size() - 1)
    teller = Teller(sum(map(len, parts.values())), emit)
    tokens = {}
    for part, documents in parts.items():
        with draft.rows(part, "tokens", dtype, ()) as stream:
            for ids in encode(tokenizer, _texts(documents, inventory, teller)):
                stream.append(ids)
        tokens[part] = stream.count - 1
    return tokens


def _texts(documents: list[_Document], inventory: Inventory, teller: Teller) -> Iterator[str]:
    for document in documents:
        yield _text(document, inventory)
        teller.count(1)


def _length(data: LanguageData, tokens: int, notes: list[str]) -> int:
    """Tokens of context: as the job says, else 256, or less so that there are some windows to learn from."""
    if data.length is not None:
        if data.length > tokens:
            raise DataError(
                f"data.length {data.length} is more than the {tokens:,} tokens of the training split",
                mend="Lower it, or add text.",
            )
        return data.length
    length = LONGEST_DEFAULT
    while length > SHORTEST_DEFAULT and tokens < length * DEFAULT_WINDOWS:
        length //= 2
    if length < LONGEST_DEFAULT:
        notes.append(f"length {length}, not {LONGEST_DEFAULT}: the training split has {tokens:,} tokens only")
    return length
