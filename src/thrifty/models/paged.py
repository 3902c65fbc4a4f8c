"""Attention of many texts over keys and values that are kept in pages, which no step copies.

A page holds the keys and values of `PAGE_TOKENS` tokens, for every layer; of one text, or of several that begin alike.
Texts that write one token each are computed together: every page is looked at where it lies, by its text's query, and
only scores and sums, which are small, move between pages and texts. A page of several texts is read from memory once.
On a processor a text's numbers are the same whatever other texts are computed with it, and whether its pages are
shared; on a GPU to rounding, for its library takes other kernels for other numbers of texts.

Shapes: T tokens of a step, B texts that write one token, N pages, M pages of the longest text, P tokens of a page, S of
M pages, H heads, K heads of keys and values, G queries that share one of them, R pages and their heads, J heads of
queries, keys and values together, D width of a head; U pages of several texts, V looks at pages: N, one at none, then U
for each text that a page has beyond its first, W at most; X rows that looks choose from, I inputs of a look, O outputs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from thrifty.models.layers import Past, written_out

PAGE_TOKENS = 32


@dataclass(frozen=True)
class Part:
    """Tokens of one text that a step reads, after those that it has kept.

    Attributes:
        tokens: to read, at least one.
        kept: tokens whose keys and values lie in its pages already.
        pages: numbers of its pages in order, with room for the new tokens.
    """

    tokens: Sequence[int]
    kept: int
    pages: Sequence[int]


class Cache:
    """Pages of keys and values, for every layer of a model.

    Args:
        layers: heads of keys and values of each, and their width.
        pages: how many; a processor's memory is used as they are written.
        dtype: of the numbers.
        device: that they lie on.
    """

    def __init__(
        self, layers: Sequence[tuple[int, int]], pages: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        shapes = [(pages, heads, PAGE_TOKENS, width) for heads, width in layers]
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for shape in shapes]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for shape in shapes]
        self.device = torch.device(device)

    def clear(self, pages: Sequence[int]) -> None:
        """Make pages hold zeros, so that nothing that lay there before can reach another text."""
        index = sent(pages, self.device)
        for each in (*self.keys, *self.values):
            each.index_fill_(0, index, 0)

    def move(self, pages: Mapping[int, int]) -> None:
        """Copy pages to others' places."""
        old, new = sent([*pages.keys(), *pages.values()], self.device).chunk(2)
        for each in (*self.keys, *self.values):
            each.index_copy_(0, new, each.index_select(0, old))


@dataclass(frozen=True)
class Kept:
    """What a model keeps of a token.

    Attributes:
        layers: heads of keys and values of each layer, and their width.
        dtype: of the numbers.
        device: of the model.
    """

    layers: Sequence[tuple[int, int]]
    dtype: torch.dtype
    device: torch.device

    @property
    def page_bytes(self) -> int:
        """Of a page, for all layers."""
        return 2 * sum(heads * width for heads, width in self.layers) * PAGE_TOKENS * self.dtype.itemsize

    def cache(self, pages: int) -> Cache:
        """Make so many pages."""
        return Cache(self.layers, pages, self.dtype, self.device)


@torch.inference_mode()
def kept_by(model: nn.Module) -> Kept:
    """Find what a model that has ``pasts`` keeps, by what one token leaves."""
    pasts: list[Past] = cast(Any, model).pasts(1)
    device = next(model.parameters()).device
    model(torch.zeros(1, 1, dtype=torch.int64, device=device), pasts)
    keys = [past.kept[0] for past in pasts]
    return Kept([(key_BHSD.shape[1], key_BHSD.shape[3]) for key_BHSD in keys], keys[0].dtype, device)


def sent(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Make int64 of numbers on a device; a GPU goes on with what it does until they are there."""
    found = torch.tensor(numbers, dtype=torch.int64)
    return found if device.type == "cpu" else found.pin_memory().to(device, non_blocking=True)


class Shape(NamedTuple):
    """How large a step of texts is that write one token each.

    Attributes:
        texts: that are computed.
        pages: that are looked at, from the first on.
        longest: pages of one text, at most.
        shared: pages that several texts look at.
        rounds: texts that look at one of those beside the first, at most.
    """

    texts: int
    pages: int
    longest: int
    shared: int = 0
    rounds: int = 0

    @classmethod
    def of(cls, writers: Sequence[Part]) -> Shape:
        """That which holds these texts and no more."""
        looks = _looks(writers)
        longest = max((part.kept // PAGE_TOKENS + 1 for part in writers), default=0)
        further = [len(each) - 1 for each in looks.values() if len(each) > 1]
        return cls(len(writers), 1 + max(looks, default=-1), longest, len(further), max(further, default=0))

    @property
    def numbers(self) -> tuple[int, ...]:
        """How many numbers `laid_out` has of each kind."""
        texts, pages, longest, shared, rounds = self
        return texts, texts, texts, pages, pages, texts * longest, shared, rounds * 2 * shared


def _looks(writers: Sequence[Part]) -> dict[int, list[tuple[int, int]]]:
    """Who looks at each page: the rows of texts, and which of their pages it is."""
    looks: dict[int, list[tuple[int, int]]] = {}
    for row, part in enumerate(writers):
        for at, page in enumerate(part.pages[: part.kept // PAGE_TOKENS + 1]):
            looks.setdefault(page, []).append((row, at))
    return looks


def laid_out(writers: Sequence[Part], shape: Shape, spare: int) -> list[list[int]]:
    """Say what a step of texts reads that write one token each.

    Of each text its token, its position and the page that it goes to; of each page the text that looks at it and the
    page's place among those of texts; the table of each text's pages; and of pages that several texts look at their
    numbers, then for each further time the texts, and the places.

    Args:
        writers: the texts.
        shape: that holds them; what is beyond is filled up with texts that nobody hears of.
        spare: a page for what those write.
    """
    texts, pages, longest, columns, rounds = shape
    beyond = texts - len(writers)
    owner, place = [0] * pages, [0] * pages
    # beyond its pages a text looks at one more, which says nothing
    table = [pages] * (texts * longest)
    shared = [0] * columns
    more = [[[0] * columns, [0] * columns] for _ in range(rounds)]
    column = 0
    for page, ((row, at), *further) in _looks(writers).items():
        owner[page], place[page] = row, row * longest + at
        table[row * longest + at] = page
        if not further:
            continue
        shared[column] = page
        for number, (other, its) in enumerate(further):
            more[number][0][column], more[number][1][column] = other, other * longest + its
            table[other * longest + its] = pages + 1 + number * columns + column
        column += 1
    return [
        [part.tokens[0] for part in writers] + [0] * beyond,
        [part.kept for part in writers] + [0] * beyond,
        [part.pages[part.kept // PAGE_TOKENS] for part in writers] + [spare] * beyond,
        owner,
        place,
        table,
        shared,
        [number for each in more for numbers in each for number in numbers],
    ]


class Step:
    """What one step reads and where it lies: made once for all layers. Parts of one token come first.

    Attributes:
        tokens_1T: of all parts, one after another.
        positions_1T: of each in its text.
        last: place of each part's last token in the row.
    """

    def __init__(self, cache: Cache, parts: Sequence[Part]) -> None:
        single = [part for part in parts if len(part.tokens) == 1]
        longer = [part for part in parts if len(part.tokens) > 1]
        assert list(parts) == [*single, *longer], "parts of one token come first"
        shape = Shape.of(single)
        tokens, positions, pages, *rest = laid_out(single, shape, spare=0)
        for part in longer:
            at = range(part.kept, part.kept + len(part.tokens))
            tokens += part.tokens
            positions += at
            pages += [part.pages[each // PAGE_TOKENS] for each in at]
        ends = list(itertools.accumulate(len(part.tokens) for part in parts))
        kinds = [tokens, positions, pages, *rest]
        lists = [*kinds, [end - 1 for end in ends], *(part.pages for part in longer)]
        found = sent(list(itertools.chain(*lists)), cache.device).split(list(map(len, lists)))
        self._take(cache, shape, found[: len(kinds)])
        self.last, *pages_of = found[len(kinds) :]
        self._readers = [
            (end - len(part.tokens), end, part.kept + len(part.tokens), pages_M)
            for part, end, pages_M in zip(longer, ends[len(single) :], pages_of, strict=True)
        ]

    @classmethod
    def of_writers(cls, cache: Cache, shape: Shape, numbers: Tensor) -> Step:
        """Make a step of texts that write one token each of what `laid_out` says of them.

        Args:
            cache: of their pages.
            shape: that the numbers are laid out for.
            numbers: of all kinds, one after another; int64, where the cache lies.
        """
        step = cls.__new__(cls)
        step._take(cache, shape, numbers.split(shape.numbers))
        step.last = torch.arange(shape.texts, device=cache.device)
        step._readers = []
        return step

    def _take(self, cache: Cache, shape: Shape, numbers: Sequence[Tensor]) -> None:
        self._cache, self._writers, self._pages = cache, shape.texts, shape.pages
        tokens_T, positions_T, self._page_T, self._owner_N, self._place_N, self._table, self._shared_U, more = numbers
        self._owner_WU, self._place_WU = more.view(shape.rounds, 2, shape.shared).unbind(1)
        self.tokens_1T, self.positions_1T = tokens_T[None], positions_T[None]
        self._slot_T = positions_T % PAGE_TOKENS
        at_S = torch.arange(shape.longest * PAGE_TOKENS, device=cache.device)
        beyond_BS = at_S > positions_T[: shape.texts, None]
        hidden_BS = torch.zeros(beyond_BS.shape, device=cache.device).masked_fill_(beyond_BS, -math.inf)
        self._hidden_B11S = hidden_BS[:, None, None]

    def layers(self) -> list[Layer]:
        """What the model's layers attend by, in order."""
        return [Layer(self, each) for each in range(len(self._cache.keys))]

    def attend(self, qkv_1TJD: Tensor, heads: int, layer: int) -> Tensor:
        """Keep the new keys and values, and let each token see its text up to itself: [1, T, H D]."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        shared = keys.shape[1]
        q_THD, k_TKD, v_TKD = qkv_1TJD[0].split((heads, shared, shared), dim=1)
        keys[self._page_T, :, self._slot_T] = k_TKD
        values[self._page_T, :, self._slot_T] = v_TKD
        seen = [self._written(q_THD[: self._writers].unflatten(1, (shared, -1)), keys, values)] if self._writers else []
        for begin, end, length, pages in self._readers:
            k_KSD, v_KSD = (each[pages].transpose(0, 1).flatten(1, 2)[:, :length] for each in (keys, values))
            group = heads // shared
            if group > 1:
                k_KSD, v_KSD = k_KSD.repeat_interleave(group, 0), v_KSD.repeat_interleave(group, 0)
            read_HTD = written_out(q_THD[begin:end].transpose(0, 1), k_KSD, v_KSD, True)
            seen.append(read_HTD.transpose(0, 1).flatten(1))
        return torch.cat(seen)[None] if len(seen) > 1 else seen[0][None]

    def _written(self, q_BKGD: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the texts see that write one token each, [B, H D]."""
        texts, q_BKGD = len(q_BKGD), q_BKGD * (1 / math.sqrt(q_BKGD.shape[-1]))
        scores_VKGP = self._look(q_BKGD, keys, self._owner_N, self._owner_WU, turned=True)
        # to the texts, whose pages share one softmax, and back to the pages
        scores_BMKGP = scores_VKGP.index_select(0, self._table).unflatten(0, (texts, -1))
        scores_BKGS = scores_BMKGP.permute(0, 2, 3, 1, 4).flatten(3).float()
        shares_BKGS = scores_BKGS.add_(self._hidden_B11S).softmax(-1).to(values.dtype)
        shares_XKGP = shares_BKGS.unflatten(3, (-1, PAGE_TOKENS)).permute(0, 3, 1, 2, 4).flatten(0, 1)
        seen_VKGD = self._look(shares_XKGP, values, self._place_N, self._place_WU)
        seen_BMKGD = seen_VKGD.index_select(0, self._table).unflatten(0, (texts, -1))
        return seen_BMKGD.sum(1, dtype=torch.float32).to(values.dtype).flatten(1)

    def _look(
        self, rows_XKGI: Tensor, pages_NKPD: Tensor, one_N: Tensor, more_WU: Tensor, *, turned: bool = False
    ) -> Tensor:
        """Multiply rows by pages, [V, K, G, O]: one by each page, and more by those of several texts.

        Each product has the bits that it has for a page of one text, however many look at the page: of several rows at
        once oneDNN's in bf16 have them too; MKL's in fp32 have not, so that there it is one row after the other.

        Args:
            rows_XKGI: what is multiplied.
            pages_NKPD: of the cache, as they lie.
            one_N: the row for each page.
            more_WU: the further rows for each page of several texts.
            turned: multiply by what is transposed.
        """
        (_, shared, group, _), out = rows_XKGI.shape, pages_NKPD.shape[2 if turned else 3]
        pages = self._pages
        found_VKGO = rows_XKGI.new_zeros(pages + 1 + more_WU.numel(), shared, group, out)
        of_RPD = pages_NKPD[:pages].flatten(0, 1)
        rows_RGI = rows_XKGI.index_select(0, one_N).flatten(0, 1)
        torch.bmm(rows_RGI, of_RPD.mT if turned else of_RPD, out=found_VKGO[:pages].flatten(0, 1))
        if not more_WU.numel():
            return found_VKGO
        # read from memory once, for all that look at them
        of_RPD = pages_NKPD.index_select(0, self._shared_U).flatten(0, 1)
        of_RPD = of_RPD.mT if turned else of_RPD
        more_WUKGO = found_VKGO[pages + 1 :].unflatten(0, more_WU.shape)
        if rows_XKGI.dtype == torch.float32 and rows_XKGI.device.type == "cpu":
            for row_U, found_UKGO in zip(more_WU, more_WUKGO, strict=True):
                torch.bmm(rows_XKGI.index_select(0, row_U).flatten(0, 1), of_RPD, out=found_UKGO.flatten(0, 1))
            return found_VKGO
        rows_WUKGI = rows_XKGI.index_select(0, more_WU.flatten()).unflatten(0, more_WU.shape)
        rows_UKWGI = rows_WUKGI.permute(1, 2, 0, 3, 4)
        product_RXO = torch.bmm(rows_UKWGI.flatten(0, 1).flatten(1, 2), of_RPD)
        more_WUKGO.copy_(product_RXO.view(*rows_UKWGI.shape[:-1], out).permute(2, 0, 1, 3, 4))
        return found_VKGO


@dataclass(frozen=True)
class Layer:
    """One layer's view of a step: what its attention is given in the place of a `Past`."""

    step: Step
    number: int

    @property
    def positions_1T(self) -> Tensor:  # noqa: N802 (a shape, not a name)
        """Of each token in its text."""
        return self.step.positions_1T

    def attend(self, qkv_1TJD: Tensor, heads: int, ways: Mapping[str, str]) -> Tensor:
        """Attend as the step does; it has one way of its own."""
        return self.step.attend(qkv_1TJD, heads, self.number)
