"""Documents into a store: check, drop copies, split, train the tokenizer, encode.

Memory holds what is known of each document, some 200 bytes and its sketch, and of texts a chunk at a time; tokens go to
disk as they are made. Files are read three times: to check them, to learn the tokenizer, to encode.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import Tokenizer

from thrifty.data.documents.corpus import Corpus
from thrifty.data.documents.dealing import deal_documents, held_out_alone
from thrifty.data.documents.given_tokenizer import read_given, try_texts
from thrifty.data.documents.survey import Survey, survey_documents, without_copies
from thrifty.data.documents.tokenizer import END_ID, SEAMS, TOKENIZER_FILE, cutting_of, encode, train_tokenizer
from thrifty.data.draft import Draft
from thrifty.data.inputs import Reject, cleaned, count_reasons, list_one, reject_lines
from thrifty.data.inventory import Inventory
from thrifty.data.teller import Teller
from thrifty.errors import DataError
from thrifty.spec import LENGTH_MULTIPLE, SPLITS, Dataset, LanguageData
from thrifty.spec.events import Emit

LONGEST_DEFAULT, SHORTEST_DEFAULT = 256, 8
DEFAULT_WINDOWS = 64
_NAMED_FILES = 3


def prepare_documents(data: LanguageData, inventory: Inventory, *, seed: int, draft: Draft, emit: Emit) -> Dataset:
    """Write the tokens, tokenizer and rejects of a corpus into a draft; return what it holds.

    The stream of a split is the end token, a document, the end token, the next document, …: each token but the
    first is predicted from those before it, the end token by what it ends. Whether the next document sees what stands
    before it is decided as batches are made.

    Raises:
        DataError: there is no document, a split has less text than one window, or the given tokenizer does not do.
        StorageError: the cache has no room.
    """
    survey = survey_documents(data, inventory, seed)
    documents, copies = without_copies(survey)
    rejects = sorted([*inventory.rejects, *survey.rejects, *copies], key=lambda reject: reject.name)
    if not documents:
        raise _none_usable(data, rejects)
    notes = _said_encodings(survey)
    if passed_over := held_out_alone([file.name for file in inventory.files]):
        notes.append(passed_over)
    parts = deal_documents(data, documents, notes)
    corpus = Corpus(data, inventory, documents, parts)
    # two bytes a token, and hardly any tokenizer needs a token for less than two bytes of text
    draft.reserve(sum(2 * each.characters if data.pieces == "characters" else each.text_bytes for each in documents))

    tokenizer, end = _tokenizer(data, inventory, corpus, notes)
    draft.write(TOKENIZER_FILE, tokenizer.to_str(pretty=True))
    tokens, text_bytes, begins = _encode_all(corpus, tokenizer, end, draft, emit)
    vocabulary = tokenizer.get_vocab_size()
    if data.tokenizer is None and vocabulary < data.vocabulary and data.pieces != "characters":
        notes.append(f"the vocabulary has {vocabulary:,} tokens, not {data.vocabulary:,}: no more pairs occur twice")
    length = _length(data, tokens, notes)

    draft.write("rejects.jsonl", reject_lines(rejects))
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
        text_bytes=text_bytes,
        source_bytes=sum(file.size for file in inventory.files),
        stored_bytes=draft.stored_bytes(),
        end=end,
        lengths={part: pieces_by_length(np.array(begins[part]), count, length) for part, count in tokens.items()},
        cleaning=cleaned(len(documents), count_reasons(rejects), notes),
    )


def _said_encodings(survey: Survey) -> list[str]:
    return [
        f"{len(names):,} file{'s' * (len(names) > 1)} read as {encoding}: {', '.join(names[:_NAMED_FILES])}"
        + (", …" if len(names) > _NAMED_FILES else "")
        for encoding, names in sorted(survey.encodings.items())
    ]


def _tokenizer(data: LanguageData, inventory: Inventory, corpus: Corpus, notes: list[str]) -> tuple[Tokenizer, int]:
    """The tokenizer that is given, or one that is learned from the training split; and its end token's number."""
    if data.tokenizer is None:
        return train_tokenizer(corpus.training(notes), vocabulary=data.vocabulary, pieces=data.pieces), END_ID
    name = data.tokenizer.name
    tokenizer, end = read_given(inventory.tokenizer, name, data.end)
    if said := try_texts(tokenizer, corpus.training([]), name):
        notes.append(said)
    notes.append(f"tokens of {name}; '{tokenizer.id_to_token(end)}', {end}, stands before each document")
    return tokenizer, end


def _encode_all(
    corpus: Corpus, tokenizer: Tokenizer, end: int, draft: Draft, emit: Emit
) -> tuple[dict[str, int], dict[str, int], dict[str, array[int]]]:
    """Write the stream of each split; return how many tokens each has to predict, the bytes of their text, and where
    documents begin.
    """
    dtype = np.min_scalar_type(tokenizer.get_vocab_size() - 1)
    unit = "documents" if any(document.row for document in corpus.documents) else "files"
    teller = Teller(sum(map(len, corpus.parts)), emit, unit)
    text_bytes = dict.fromkeys(SPLITS, 0)
    begins = {split: array("q") for split in SPLITS}

    def counted(split: str, chunks: Iterable[str]) -> Iterator[str]:
        for chunk in chunks:
            text_bytes[split] += len(chunk.encode())
            yield chunk
        teller.count(1)

    texts = ((split, counted(split, chunks)) for split, chunks in corpus.texts(range(len(corpus.documents))))
    with contextlib.ExitStack() as stack:
        streams = {split: stack.enter_context(draft.rows(split, "tokens", dtype, ())) for split in SPLITS}
        cutting = (SEAMS, False) if corpus.data.tokenizer is None else cutting_of(tokenizer)
        for split, ids in encode(tokenizer, texts, end, cutting):
            if ids[0] == end:
                begins[split].append(streams[split].count)
            streams[split].append(ids)
    return {split: stream.count - 1 for split, stream in streams.items()}, text_bytes, begins


def pieces_by_length(begins_N: np.ndarray, tokens: int, length: int) -> tuple[int, ...]:
    """Count documents by their length, as windows of a stream cut them: as `Dataset.lengths` has it.

    Args:
        begins_N: of documents in the stream.
        tokens: of the stream.
        length: of windows.

    >>> pieces_by_length(np.array([0, 5, 30]), tokens=40, length=16)
    (3, 2)
    """
    cuts = np.union1d(begins_N[begins_N < tokens], np.arange(0, tokens, length))
    sizes = np.diff(cuts, append=tokens)
    return tuple(np.bincount((sizes - 1) // LENGTH_MULTIPLE, minlength=-(-length // LENGTH_MULTIPLE)).tolist())


def _none_usable(data: LanguageData, rejects: list[Reject]) -> DataError:
    if not rejects:
        suffixes: dict[str, int] = {}
        for file in list_one(data.path)[0]:
            suffixes[file.suffix] = suffixes.get(file.suffix, 0) + 1
        if not suffixes:
            return DataError(f"the data folder '{data.path}' is empty", mend="Put text files into it.")
        common = max(suffixes, key=lambda suffix: suffixes[suffix])
        held = ", ".join(f"{count} *{suffix}" for suffix, count in sorted(suffixes.items(), key=lambda i: -i[1])[:5])
        return DataError(
            f"no file in '{data.path}' fits data.files '{data.files}'; it holds {held}",
            mend=f"Set data.files, such as '**/*{common}'.",
        )
    found = ", ".join(f"{count} {reason}" for reason, count in count_reasons(rejects).items())
    first = f"; the first: '{rejects[0].name}' {rejects[0].reason}{rejects[0].detail}"
    return DataError(f"'{data.path}' has no usable document: {found}{first}", mend="A document is a text, in UTF-8.")


def _length(data: LanguageData, tokens: dict[str, int], notes: list[str]) -> int:
    """Tokens of context: as the job says, else 256, or less so that there are some windows to learn from."""
    least = min(tokens, key=lambda split: tokens[split])
    if tokens[least] < 1:
        raise DataError(
            f"'{data.path}' has too little text: nothing is left for the {least} split",
            mend="Add text, or hold out more: data.split.",
        )
    if data.length is not None:
        if data.length > tokens["train"]:
            raise DataError(
                f"data.length {data.length} is more than the {tokens['train']:,} tokens of the training split",
                mend="Lower it, or add text.",
            )
        return data.length
    length = LONGEST_DEFAULT
    while length > SHORTEST_DEFAULT and tokens["train"] < length * DEFAULT_WINDOWS:
        length //= 2
    if length < LONGEST_DEFAULT:
        notes.append(f"length {length}, not {LONGEST_DEFAULT}: the training split has {tokens['train']:,} tokens only")
    return length
