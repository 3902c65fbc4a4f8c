"""The tokens of transcripts: words or characters, decided by what the training split says."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from thrifty.data.inputs import Reject
from thrifty.data.sounds.hearing import Heard
from thrifty.errors import DataError
from thrifty.spec import Sound
from thrifty.spec.transcripts import BETWEEN_WORDS, BLANKS, are_words, pieces

# Words are tokens where there are so few of them, each heard so often, that every one can be learned by its sound
MOST_WORDS, LEAST_HEARD = 100, 10
MOST_TOKENS = 100_000
# frames of a wave at whose ends no window of the model's is whole
_CUT_FRAMES = 2


def decide_symbols(
    transcripts: Sequence[str], asked: Literal["words", "characters"] | None, notes: list[str]
) -> tuple[str, ...]:
    """Return what tokens stand for, in order, and note why.

    Args:
        transcripts: tidied, of the training split.
        asked: what the job says.
        notes: to be added to.

    Raises:
        DataError: nothing is said in any of them.
    """
    counts = Counter(word for transcript in transcripts for word in transcript.split())
    if not counts:
        raise DataError("the transcripts of the training split are all empty", mend="Name their column: transcript.")
    few = len(counts) <= MOST_WORDS and min(counts.values()) >= LEAST_HEARD
    if asked == "words" or (asked is None and few):
        why = "asked for" if asked else f"no more than {MOST_WORDS}, each said {min(counts.values()):,} times or more"
        notes.append(f"tokens are words, {len(counts)} of them: {why}")
        return tuple(sorted(counts))
    characters = {character for word in counts for character in word} | {" "}
    notes.append(f"tokens are characters, {len(characters)} of them, of {len(counts):,} different words")
    return tuple(sorted(characters))


def read_symbols(raw: bytes, name: str, notes: list[str]) -> tuple[str, ...]:
    """Return what the tokens of a checkpoint's vocabulary stand for, in lower case, without the blank: from token 1 on.

    Args:
        raw: JSON of numbers by token, as ``vocab.json`` of a wav2vec 2.0 has them; ``|`` stands between words.
        name: of its file.
        notes: to be added to.

    Raises:
        DataError: it is something else, it has no blank, or two tokens differ by case alone.
    """
    try:
        numbers = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"tokenizer '{name}' is no JSON: {error}") from None
    whole = isinstance(numbers, dict) and all(type(number) is int for number in numbers.values())
    if not whole or sorted(numbers.values()) != list(range(len(numbers))):
        raise DataError(
            f"tokenizer '{name}' does not number its tokens from 0 on", mend="Give the vocab.json of a checkpoint."
        )
    tokens = sorted(numbers, key=lambda token: numbers[token])
    blank = next((each for each in BLANKS if each in numbers), None)
    if not 2 <= len(tokens) <= MOST_TOKENS or blank is None:
        raise DataError(
            f"tokenizer '{name}' has {len(tokens)} tokens, and {'no blank' if blank is None else 'no use'}",
            mend=f"A blank, {' or '.join(BLANKS)}, and up to {MOST_TOKENS:,} others are what is wanted.",
        )
    symbols = tuple(" " if token == BETWEEN_WORDS else token.lower() for token in tokens if token != blank)
    if twice := next((each for each in symbols if symbols.count(each) > 1), None):
        raise DataError(f"tokenizer '{name}' has {twice!r:.50} twice, in both cases", mend="Leave data.tokenizer out.")
    notes.append(f"tokens are those of {name}, {len(symbols)} beside the blank")
    return symbols


def numbered(transcript: str, symbols: Sequence[str]) -> list[int]:
    """Return the tokens of a transcript, of which the first symbol is number 1.

    >>> numbered("7 2 7", ("2", "7"))
    [2, 1, 2]
    """
    number = {symbol: place for place, symbol in enumerate(symbols, start=1)}
    return [number[piece] for piece in pieces(transcript, symbols)]


def reject_unsayable(heard: Sequence[Heard], symbols: Sequence[str], sound: Sound) -> tuple[list[Heard], list[Reject]]:
    """Put aside recordings whose transcripts are empty, use a symbol that training lacks, or are too long for them."""
    known, what = set(symbols), "word" if are_words(symbols) else "character"
    kept, rejects = [], []
    for each in heard:
        said = pieces(each.label, symbols)
        unknown = next((piece for piece in said if piece not in known), None)
        # between two tokens that are the same there has to be a blank
        needed = len(said) + sum(one == other for one, other in itertools.pairwise(said))
        if not said:
            rejects.append(Reject(each.name, "empty transcript"))
        elif unknown is not None:
            rejects.append(Reject(each.name, f"{what} not in the training split", f": {unknown[:50]!r}"))
        elif needed > sound.answered(each.count) - (_CUT_FRAMES if sound.is_wave else 0):
            detail = f": {len(said)} {what}s in {each.seconds:.2f} s"
            rejects.append(Reject(each.name, "too short for its transcript", detail))
        else:
            kept.append(each)
    return kept, rejects
