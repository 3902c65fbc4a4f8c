"""Attention of many texts over keys and values that are kept in pages, which no step copies.

A page holds the keys and values of `PAGE_TOKENS` tokens, for every layer; of one text, or of several that begin alike.
Texts that write one token each are computed together: every page is looked at where it lies, by its text's query, and
only scores and sums, which are small, move between pages and texts. A page of several texts is read from memory once.
A text's numbers are the same whatever other texts are computed with it, and whether its pages are shared.

Shapes: T tokens of a step, B texts that write one token, N pages, M pages of the longest text, P tokens of a page, S of
M pages, H heads, K heads of keys and values, G queries that share one of them, R pages and their heads, J heads of
queries, keys and values together, D width of a head; U pages of several texts, V looks at pages: N, one at none, then U
for each text that a page has beyond its first; X rows that looks choose from, I inputs of a look, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

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
        pages: how many; memory is used as they are written.
        dtype: of the numbers.
    """

    def __init__(self, layers: Sequence[tuple[int, int]], pages: int, dtype: torch.dtype) -> None:
        shapes = [(pages, heads, PAGE_TOKENS, width) for heads, width in layers]
        self.keys = [torch.empty(shape, dtype=dtype) for shape in shapes]
        self.values = [torch.empty(shape, dtype=dtype) for shape in shapes]

    def clear(self, pages: Sequence[int]) -> None:
        """Make pages hold zeros, so that nothing that lay there before can reach another text."""
        index = torch.tensor(pages)
        for each in (*self.keys, *self.values):
            each.index_fill_(0, index, 0)

    def move(self, pages: Mapping[int, int]) -> None:
        """Copy pages to others' places."""
        old, new = torch.tensor(list(pages.keys())), torch.tensor(list(pages.values()))
        for each in (*self.keys, *self.values):
            each.index_copy_(0, new, each.index_select(0, old))


@dataclass(frozen=True)
class Kept:
    """What a model keeps of a token.

    Attributes:
        layers: heads of keys and values of each layer, and their width.
        dtype: of the numbers.
    """

    layers: Sequence[tuple[int, int]]
    dtype: torch.dtype

    @property
    def page_bytes(self) -> int:
        """Of a page, for all layers."""
        return 2 * sum(heads * width for heads, width in self.layers) * PAGE_TOKENS * self.dtype.itemsize

    def cache(self, pages: int) -> Cache:
        """Make so many pages."""
        return Cache(self.layers, pages, self.dtype)


@torch.inference_mode()
def kept_by(model: nn.Module) -> Kept:
    """Find what a model that has ``pasts`` keeps, by what one token leaves."""
    pasts: list[Past] = cast(Any, model).pasts(1)
    model(torch.zeros(1, 1, dtype=torch.int64), pasts)
    keys = [past.kept[0] for past in pasts]
    return Kept([(key_BHSD.shape[1], key_BHSD.shape[3]) for key_BHSD in keys], keys[0].dtype)


class Step:
    """What one step reads and where it lies: made once for all layers. Parts of one token come first.

    Attributes:
        tokens_1T: of all parts, one after another.
        positions_1T: of each in its text.
        last: place of each part's last token in the row.
    """

    def __init__(self, cache: Cache, parts: Sequence[Part]) -> None:
        self._cache = cache
        single = [part for part in parts if len(part.tokens) == 1]
        longer = [part for part in parts if len(part.tokens) > 1]
        assert list(parts) == [*single, *longer], "parts of one token come first"
        positions = [part.kept + place for part in parts for place in range(len(part.tokens))]
        pages = [part.pages[(part.kept + at) // PAGE_TOKENS] for part in parts for at in range(len(part.tokens))]
        self.tokens_1T = torch.tensor([[token for part in parts for token in part.tokens]])
        self.positions_1T = torch.tensor([positions])
        self._page_T = torch.tensor(pages)
        self._slot_T = self.positions_1T[0] % PAGE_TOKENS
        ends = torch.tensor([len(part.tokens) for part in parts]).cumsum(0)
        self.last = (ends - 1).tolist()
        self._writers = len(single)
        self._lay_out(single)
        self._readers = [
            (end - len(part.tokens), end, part.kept + len(part.tokens), torch.tensor(part.pages))
            for part, end in zip(longer, ends[len(single) :].tolist(), strict=True)
        ]

    def _lay_out(self, writers: Sequence[Part]) -> None:
        """Who looks at each page, what of it is written, and the pages of each text."""
        used = [part.pages[: part.kept // PAGE_TOKENS + 1] for part in writers]
        longest = max((len(each) for each in used), default=0)
        looks: dict[int, list[tuple[int, int]]] = {}
        for row, each in enumerate(used):
            for at, page in enumerate(each):
                looks.setdefault(page, []).append((row, row * longest + at))
        self._pages = pages = 1 + max(looks, default=-1)
        owner, place = [0] * pages, [0] * pages
        # beyond its pages a text looks at one more, which says nothing
        table = [pages] * (len(used) * longest)
        for page, ((row, at), *_) in looks.items():
            owner[page], place[page], table[at] = row, at, page
        shared = {page: further for page, (_, *further) in looks.items() if further}
        rounds = max(map(len, shared.values()), default=0)
        more = [[(0, 0)] * len(shared) for _ in range(rounds)]
        for column, further in enumerate(shared.values()):
            for number, (row, at) in enumerate(further):
                more[number][column] = row, at
                table[at] = pages + 1 + number * len(shared) + column
        self._owner_N, self._place_N = torch.tensor(owner), torch.tensor(place)
        self._shared_U = torch.tensor(list(shared), dtype=torch.int64)
        self._more = [torch.tensor(each).T.contiguous() for each in more]
        self._table = torch.tensor(table)
        beyond_BS = torch.arange(longest * PAGE_TOKENS) > torch.tensor([part.kept for part in writers])[:, None]
        self._hidden_B11S = torch.zeros(beyond_BS.shape).masked_fill_(beyond_BS, -math.inf)[:, None, None]

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
        scores_VKGP = self._look(q_BKGD, keys, [self._owner_N, *(owner_U for owner_U, _ in self._more)], turned=True)
        # to the texts, whose pages share one softmax, and back to the pages
        scores_BMKGP = scores_VKGP.index_select(0, self._table).unflatten(0, (texts, -1))
        scores_BKGS = scores_BMKGP.permute(0, 2, 3, 1, 4).flatten(3).float()
        shares_BKGS = scores_BKGS.add_(self._hidden_B11S).softmax(-1).to(values.dtype)
        shares_XKGP = shares_BKGS.unflatten(3, (-1, PAGE_TOKENS)).permute(0, 3, 1, 2, 4).flatten(0, 1)
        seen_VKGD = self._look(shares_XKGP, values, [self._place_N, *(place_U for _, place_U in self._more)])
        seen_BMKGD = seen_VKGD.index_select(0, self._table).unflatten(0, (texts, -1))
        return seen_BMKGD.sum(1, dtype=torch.float32).to(values.dtype).flatten(1)

    def _look(self, rows_XKGI: Tensor, pages_NKPD: Tensor, chosen: Sequence[Tensor], *, turned: bool = False) -> Tensor:
        """Multiply rows by pages, [V, K, G, O]: one by each page, then one more by those of several texts each time.

        Each time it is the product that a page of one text has, whose bits do not depend on how many there are.

        Args:
            rows_XKGI: what is multiplied.
            pages_NKPD: of the cache, as they lie.
            chosen: the row for each page, then for each page of several texts, time by time.
            turned: multiply by what is transposed.
        """
        (_, shared, group, _), out = rows_XKGI.shape, pages_NKPD.shape[2 if turned else 3]
        pages, times = self._pages, len(chosen) - 1
        found_VKGO = rows_XKGI.new_zeros(pages + 1 + times * len(self._shared_U), shared, group, out)
        begin, of_RPD = 0, pages_NKPD[:pages].flatten(0, 1)
        for time, row in enumerate(chosen):
            if time == 1:  # read from memory once, for all that look at them
                begin, of_RPD = pages + 1, pages_NKPD.index_select(0, self._shared_U).flatten(0, 1)
            rows_RGI, end = rows_XKGI.index_select(0, row).flatten(0, 1), begin + len(row)
            torch.bmm(rows_RGI, of_RPD.mT if turned else of_RPD, out=found_VKGO[begin:end].flatten(0, 1))
            begin = end
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
