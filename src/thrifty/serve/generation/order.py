"""`Order`: what is asked of a text that is to be written; `Piece`: what was written since the last one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from thrifty.models.wishes import Wishes


@dataclass(frozen=True, kw_only=True)
class Order:
    """A prompt and how it is to be written on.

    Attributes:
        prompt: its tokens, at least one.
        max_tokens: to write, at most.
        wishes: how each token is chosen.
        seed: of the text's own numbers; the same order gives the same text, whatever is written beside it.
        stop: texts that end it, and are not part of it.
        likeliest: of each token, tell so many likeliest ones with their log probabilities; None tells no probability.
        growing: tell pieces as they are written, not all at the end.
        salt: what is read of prompts is shared among those of one salt alone.
    """

    prompt: Sequence[int]
    max_tokens: int
    wishes: Wishes = field(default_factory=Wishes)
    seed: int = 0
    stop: Sequence[str] = ()
    likeliest: int | None = None
    growing: bool = False
    salt: str = ""


@dataclass(frozen=True)
class Told:
    """One token with its log probability, and the likeliest ones in its place with theirs."""

    token: int
    log_probability: float
    likeliest: Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Piece:
    """What was written since the last piece.

    Attributes:
        text: of it.
        tokens: how many were written so far in all.
        told: of each new token, where the order asks for probabilities.
        end: in the last piece why it is the last: ``stop`` by itself or by a text that ends it, or ``length``.
        shared: tokens of the prompt that were not read, since another text's keys and values of them were there.
    """

    text: str
    tokens: int
    told: Sequence[Told] = ()
    end: str = ""
    shared: int = 0
