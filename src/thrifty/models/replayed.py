"""Steps of texts that write one token each, replayed on a GPU: what a step asks of it is asked once, as a CUDA graph.

A step of GPT-2 is some four hundred small kernels, and a processor takes longer to ask for one than a GPU to run it.
Sizes of steps are rounded up, so that a few graphs serve all; what they are filled up with reaches no text.

Shapes: B texts, V vocabulary.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thrifty.models.paged import Cache, Part, Shape, Step, laid_out, sent

# to record a step takes as long as a dozen steps: sizes that come and go are computed as they come
OFTEN = 4
MOST_GRAPHS = 64


@dataclass(frozen=True)
class Recorded:
    """A step that can be replayed.

    Attributes:
        graph: of its kernels.
        numbers: that it reads, of `laid_out`; to be written before it is replayed.
        logits: that it writes, [B, V].
    """

    graph: torch.cuda.CUDAGraph
    numbers: Tensor
    logits: Tensor


class Replays:
    """Steps over the pages of a cache on a GPU, recorded by their sizes once one was met often.

    Args:
        cache: of the texts, with a page more than they may have.
        compute: takes a step; returns its logits [B, V].
    """

    def __init__(self, cache: Cache, compute: Callable[[Step], Tensor]) -> None:
        self._cache, self._compute = cache, compute
        self._spare = len(cache.keys[0]) - 1
        self._met: Counter[Shape] = Counter()
        self._recorded: OrderedDict[Shape, Recorded] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, writers: Sequence[Part]) -> Tensor | None:
        """Replay a step; return the logits [B, V], to be read before the next, or None: compute it.

        Args:
            writers: texts that write one token each.
        """
        shape = rounded(Shape.of(writers), self._spare)
        recorded = self._recorded.get(shape)
        if recorded is None:
            self._met[shape] += 1
            if self._met[shape] < OFTEN:
                return None
        numbers = [number for each in laid_out(writers, shape, self._spare) for number in each]
        if recorded is None:
            recorded = self._recorded[shape] = self._record(shape, sent(numbers, self._cache.device))
            if len(self._recorded) > MOST_GRAPHS:
                gone, _ = self._recorded.popitem(last=False)
                del self._met[gone]
        else:
            recorded.numbers.copy_(torch.tensor(numbers).pin_memory(), non_blocking=True)
        self._recorded.move_to_end(shape)
        recorded.graph.replay()
        return recorded.logits[: len(writers)]

    def _record(self, shape: Shape, numbers: Tensor) -> Recorded:
        """Record a step: computed once first, on a stream of its own, so that libraries have their workspaces."""
        device = self._cache.device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            self._compute(Step.of_writers(self._cache, shape, numbers))
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # other threads of a server may use the GPU meanwhile
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            logits_BV = self._compute(Step.of_writers(self._cache, shape, numbers))
        return Recorded(graph, numbers, logits_BV)


def rounded(shape: Shape, most_pages: int) -> Shape:
    """Round the sizes of a step up, to 1, 2, 3, 4, 6, 8, 12, 16 and so on: at most a half more of anything.

    >>> rounded(Shape(texts=5, pages=33, longest=3), most_pages=40)
    Shape(texts=6, pages=40, longest=3, shared=0, rounds=0)
    """
    sizes = Shape(*map(_size, shape))
    return sizes._replace(pages=min(sizes.pages, most_pages))


def _size(number: int) -> int:
    if number == 0:
        return 0
    below = 1 << max(0, (number - 1).bit_length() - 1)
    return below * 3 // 2 if number <= below * 3 // 2 else 2 * below
