"""Transcripts as tokens: whole words where there are few of them, else characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# how a vocabulary of wav2vec 2.0 writes the blank, and what stands between words
BLANKS, BETWEEN_WORDS = ("<pad>", "[PAD]"), "|"


def tidied(transcript: str) -> str:
    """Return a transcript in lower case, its words one space apart.

    >>> tidied("  Seven\\tTWO ")
    'seven two'
    """
    return " ".join(transcript.lower().split())


def are_words(symbols: Sequence[str]) -> bool:
    """Say whether tokens are words: where they are characters, the space is one of them.

    >>> are_words(("0", "1")), are_words((" ", "a", "b"))
    (True, False)
    """
    return " " not in symbols


def pieces(transcript: str, symbols: Sequence[str]) -> list[str]:
    """Cut a tidied transcript into words or characters.

    >>> pieces("7 2", ("2", "7")), pieces("a b", (" ", "a", "b"))
    (['7', '2'], ['a', ' ', 'b'])
    """
    return transcript.split() if are_words(symbols) else list(transcript)


def spelled(tokens: Iterable[int], symbols: Sequence[str]) -> str:
    """Spell tokens, of which the first symbol is number 1.

    >>> spelled([2, 1], ("2", "7")), spelled([2, 1, 3], (" ", "a", "b"))
    ('7 2', 'a b')
    """
    said = [symbols[token - 1] for token in tokens]
    return " ".join(said) if are_words(symbols) else " ".join("".join(said).split())
