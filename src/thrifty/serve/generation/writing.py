"""`Writing`: one text while it is written: its tokens, its pages, and the characters that are told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from thrifty.errors import RequestError
from thrifty.models.paged import PAGE_TOKENS, Part
from thrifty.serve.generation.order import Order, Piece, Told
from thrifty.serve.generation.prefix import names_of
from thrifty.serve.generation.turn import Turn
from thrifty.serve.spans import Trace

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Tokens of a prompt that are read at once; where its parts are cut depends on nothing else than the prompt. A part that
# is full is what texts share: whoever takes it over goes on as if it had read it, to the bit.
READ_TOKENS = 64
# tokens before the first new one that its characters may depend on
_BEFORE = 8
_BROKEN = "\ufffd"  # of a character whose bytes are not all there

Tell = Callable[[Piece | RequestError], None]


class Writing:
    """One text while it is written; touched by the writer's thread alone but for ``left``.

    Args:
        order: what is asked.
        tell: hears of pieces; of an error instead, when there is one.
        deadline: `time.monotonic` after which the text is worth nothing.
        end: token that ends a text.
        trace: to be told how long it took; None where nobody wants to know.

    Attributes:
        left: whoever asked has gone.
        losses: workers that were lost over it since it was last seen to do no harm.
        pages: that it holds.
        promised: pages that it may yet take, once it was told how long a context there is.
        shared: tokens of its prompt that it had not to read, since another text has.
        begun, taken, first: `time.monotonic` when it was asked for, when it left the queue, and when its first token
            was there; 0 before.
    """

    def __init__(
        self, order: Order, tell: Tell, *, deadline: float, begun: float, end: int, trace: Trace | None = None
    ) -> None:
        self.order, self.tell, self.deadline, self.begun, self._trace = order, tell, deadline, begun, trace
        self.left = False
        self.losses = 0
        self.taken = self.first = 0.0
        self.pages: list[int] = []
        self.promised = self.shared = 0
        self._length, self._end = 0, end
        self._names = names_of(order.prompt, READ_TOKENS, order.salt)
        self._tokens = list(order.prompt)
        # the context's first token, and how many from there on have their keys and values kept
        self._start, self._kept = 0, 0
        self._generator, self._number = torch.Generator().manual_seed(order.seed), -1.0
        self._seen = max(0, len(order.prompt) - _BEFORE), len(order.prompt)
        self._text, self._told_characters = "", 0
        self._told: list[Told] = []

    def fit(self, length: int) -> int:
        """Say how many pages it may need in all, in contexts of so many tokens at most."""
        self._length, self._start = length, max(0, self._start, len(self._tokens) - length)
        longest = len(self.order.prompt) - self._start + self.order.max_tokens
        if longest > length:  # it will move on within its pages and write them anew, so that they are its own
            self._names = []
        return -(-min(length, longest) // PAGE_TOKENS)

    @property
    def names(self) -> Sequence[bytes]:
        """What the parts of its prompt are called that other texts may have read too."""
        return self._names

    @property
    def next_name(self) -> bytes | None:
        """What is to be read next, where other texts may have read it too."""
        at, rest = divmod(self._kept, READ_TOKENS)
        return self._names[at] if not rest and at < len(self._names) else None

    def begin(self, pages: int, shared: Sequence[int]) -> None:
        """Begin with so many pages promised in all, and some that hold the begin of its prompt."""
        self.promised = pages
        self.take_over(shared)

    def take_over(self, pages: Sequence[int]) -> None:
        """Hold pages with what is to be read next in the place of as many that were promised."""
        self.pages += pages
        self.promised -= len(pages)
        self.shared += len(pages) * PAGE_TOKENS
        self._kept += len(pages) * PAGE_TOKENS

    def rewind(self) -> None:
        """Its pages are lost: what was read is to be read again, and nothing is told twice."""
        self.pages, self.promised, self.shared, self._kept = [], 0, 0, 0

    @property
    def written(self) -> list[int]:
        """New tokens."""
        return self._tokens[len(self.order.prompt) :]

    @property
    def to_read(self) -> int:
        """Tokens to read before the next one can be chosen."""
        if self._slides:
            return self._length
        return len(self._tokens) - self._start - self._kept

    @property
    def _slides(self) -> bool:
        """Whether the context is full: it moves on by a token and is read again, since positions shift."""
        return self._kept > 0 and len(self._tokens) - self._start > self._length

    def next_part(self, take: Callable[[], int]) -> tuple[Part, list[int]]:
        """Say what is to be read next, and which pages were taken for it."""
        if self._slides:
            self._start, self._kept = len(self._tokens) - self._length, 0
        begin = self._start + self._kept
        tokens = self._tokens[begin : begin + READ_TOKENS]
        new = [take() for _ in range(-(-(self._kept + len(tokens)) // PAGE_TOKENS) - len(self.pages))]
        self.pages += new
        self.promised -= len(new)
        return Part(tokens, self._kept, self.pages), new

    def move(self, pages: dict[int, int]) -> None:
        """Follow pages that have moved."""
        self.pages = [pages.get(page, page) for page in self.pages]

    def turn(self, part: Part) -> Turn:
        """Say what a step is to do with a part: read it, and choose the next token where none is left to read."""
        if self._start + self._kept + len(part.tokens) < len(self._tokens):
            return Turn(part)
        return Turn(part, self.order.wishes, self._next_number(), self.order.likeliest)

    def read(self, part: Part) -> None:
        """Remember that a part was read."""
        self._kept += len(part.tokens)

    def _next_number(self) -> float:
        """Draw the text's next number from 0 up to but not 1; the same until a token was chosen by it."""
        if self.order.wishes.temperature == 0:
            return 0.0
        if self._number < 0:
            self._number = float(torch.rand((), dtype=torch.float64, generator=self._generator))
        return self._number

    def add(self, token: int, told: Told | None, tokenizer: Tokenizer) -> bool:
        """Write a token, and tell what there is to tell; return whether that was the last."""
        order = self.order
        self._number, self.losses = -1.0, 0
        ended = token == self._end
        if not ended:
            self._tokens.append(token)
            if told is not None:
                self._told.append(told)
        count = len(self._tokens) - len(order.prompt)
        full = count >= order.max_tokens
        if order.growing or order.stop:
            self._spell(tokenizer)
        if order.stop and (cut := self._stopped()) is not None:
            self._say(self._text[:cut], count, "stop")
            return True
        if ended or full:
            whole = self._whole(tokenizer)
            # what was told already stays told
            text = whole if whole.startswith(self._text[: self._told_characters]) else self._text
            stops = [at for at in map(text.find, order.stop) if at >= 0]
            self._say(text[: min(stops)] if stops else text, count, "stop" if ended or stops else "length")
            return True
        if order.growing:
            safe = self._text[: len(self._text) - self._held_back()]
            if len(safe) > self._told_characters or self._told:
                self._say(safe, count, "")
        return False

    def _say(self, text: str, count: int, end: str) -> None:
        new, self._told_characters = text[self._told_characters :], max(self._told_characters, len(text))
        told, self._told = self._told, []
        if end:
            self.note()
        self.tell(Piece(new, count, told, end, self.shared))

    def note(self) -> None:
        """Note in its trace how long it waited and was written; its request ends once the end is told."""
        if self._trace is not None:
            self._trace.note("waiting", self.begun, self.taken)
            self._trace.note("computing", self.taken, time.monotonic(), tokens=len(self.written))

    def _whole(self, tokenizer: Tokenizer) -> str:
        """All new text; some tokenizers leave out the space a text begins with, so what is new is told by the whole."""
        read = tokenizer.decode(self.order.prompt)
        whole: str = tokenizer.decode(self._tokens)
        return whole[len(read) :]

    def _spell(self, tokenizer: Tokenizer) -> None:
        """Add the characters of new tokens, once their bytes are all there."""
        begin, known = self._seen
        before, after = tokenizer.decode(self._tokens[begin:known]), tokenizer.decode(self._tokens[begin:])
        if len(after) > len(before) and not after.endswith(_BROKEN):
            self._text += after[len(before) :]
            self._seen = known, len(self._tokens)

    def _stopped(self) -> int | None:
        """Where the first of the texts that end it begins."""
        longest = max(map(len, self.order.stop))
        begin = max(0, self._told_characters - longest)
        places = [at for at in (self._text.find(each, begin) for each in self.order.stop) if at >= 0]
        return min(places, default=None)

    def _held_back(self) -> int:
        """Characters at the end that may be the begin of a text that ends it."""
        return max((_overlap(self._text, each) for each in self.order.stop), default=0)


def _overlap(text: str, stop: str) -> int:
    """Characters that a text ends with and ``stop`` begins with.

    >>> _overlap("one two", "two three"), _overlap("one", "two")
    (3, 0)
    """
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)


def parts_of(writings: Sequence[Writing], take: Callable[[], int]) -> tuple[list[tuple[Writing, Part]], list[int]]:
    """Say what is to be read of each text next, those of one token first, and which pages were taken for it."""
    parts: list[tuple[Writing, Part]] = []
    taken: list[int] = []
    for writing in writings:
        part, new = writing.next_part(take)
        parts.append((writing, part))
        taken += new
    return sorted(parts, key=lambda each: len(each[1].tokens) > 1), taken
