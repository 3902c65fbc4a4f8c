"""Attention of many texts over keys and values that are kept in pages, which no step copies.

A page holds the keys and values of `PAGE_TOKENS` tokens of one text, for every layer. Texts that write one token each
are computed together: every page is looked at where it lies, by its text's query, and only scores and sums, which are
small, move between pages and texts. A text's numbers are the same whatever other texts are computed with it.

Shapes: T tokens of a step, B texts that write one token, N pages, M pages of the longest text, P tokens of a page, S of
M pages, H heads, K heads of keys and values, G queries that share one of them, R pages and their heads, J heads of
queries, keys and values together, D width of a head.
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
        """Whose each page is, what of it is written, and the pages of each text."""
        used = [part.pages[: part.kept // PAGE_TOKENS + 1] for part in writers]
        self._pages = pages = 1 + max((max(each) for each in used), default=-1)
        longest = max((len(each) for each in used), default=0)
        owner, place = [0] * pages, [0] * pages
        table, seen = [], []
        for row, (part, each) in enumerate(zip(writers, used, strict=True)):
            for at, page in enumerate(each):
                owner[page], place[page] = row, row * longest + at
            # beyond its pages a text looks at one more, which says nothing
            table.append([*each, *[pages] * (longest - len(each))])
            seen.append(part.kept + 1)
        self._longest = longest
        self._owner_N, self._place_N = torch.tensor(owner), torch.tensor(place)
        self._table = torch.tensor(table).flatten()
        beyond_BS = torch.arange(longest * PAGE_TOKENS) >= torch.tensor(seen)[:, None]
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
        (texts, shared, group, width), pages = q_BKGD.shape, self._pages
        q_RGD = (q_BKGD * (1 / math.sqrt(width))).index_select(0, self._owner_N).flatten(0, 1)
        scores_NKGP = keys.new_zeros(pages + 1, shared, group, PAGE_TOKENS)
        torch.bmm(q_RGD, keys[:pages].flatten(0, 1).mT, out=scores_NKGP[:pages].flatten(0, 1))
        # to the texts, whose pages share one softmax, and back to the pages
        scores_BMKGP = scores_NKGP.index_select(0, self._table).unflatten(0, (texts, -1))
        scores_BKGS = scores_BMKGP.permute(0, 2, 3, 1, 4).flatten(3).float()
        shares_BKGS = scores_BKGS.add_(self._hidden_B11S).softmax(-1).to(values.dtype)
        shares_BMKGP = shares_BKGS.unflatten(3, (-1, PAGE_TOKENS)).permute(0, 3, 1, 2, 4)
        shares_NKGP = shares_BMKGP.flatten(0, 1).index_select(0, self._place_N)
        seen_NKGD = values.new_zeros(pages + 1, shared, group, width)
        torch.bmm(shares_NKGP.flatten(0, 1), values[:pages].flatten(0, 1), out=seen_NKGD[:pages].flatten(0, 1))
        seen_BMKGD = seen_NKGD.index_select(0, self._table).unflatten(0, (texts, -1))
        return seen_BMKGD.sum(1, dtype=torch.float32).to(values.dtype).flatten(1)


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
