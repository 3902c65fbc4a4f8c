"""What caches hold and what the kernel must clear: a heap's holes and top, and distances between touches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost import Op
from thrifty.cost.allocations import Allocations, Block
from thrifty.cost.residency import LARGEST_THRESHOLD, Heap, cold_shares, fresh_bytes

MIB = 1 << 20


def op(*touched: tuple[int, int]) -> Op:
    return Op("add", "pointwise", "forward", 0, 0, 0, "float32", "", touched=touched)


def lost_beyond(limit: float) -> list[float]:
    """Shares of three operators: one touches 1 MiB, one 8 MiB of something else, one the first again."""
    ops = [op((-1, MIB)), op((-2, 8 * MIB)), op((-1, MIB))]
    return cold_shares(ops, Allocations((), ()), lambda distance: float(distance > limit))


def test_a_block_is_found_until_enough_else_was_touched() -> None:
    assert lost_beyond(16 * MIB) == [1, 1, 0]
    assert lost_beyond(4 * MIB) == [1, 1, 1]


def test_a_block_given_back_is_found_by_the_next_of_its_size() -> None:
    blocks = (Block(MIB, 0), Block(MIB, 1), Block(2 * MIB, 2))
    events = ((0, 0), (0, -2), (1, 1), (1, -3), (2, 2))
    shares = cold_shares([op((0, MIB)), op((1, MIB)), op((2, 2 * MIB))], Allocations(blocks, events), lambda d: d > MIB)
    assert shares == [1, 0, 1]


def test_an_operator_that_says_nothing_finds_half() -> None:
    assert cold_shares([op()], Allocations((), ()), lambda _: 0.0) == [0.5]


def test_large_blocks_are_mapped_anew_and_small_ones_kept() -> None:
    for size, again in ((2 * LARGEST_THRESHOLD, 2 * LARGEST_THRESHOLD), (MIB, 0)):
        heap = Heap()
        heap.free(heap.allocate(size))
        # the threshold has grown with the first block that was freed
        heap.free(heap.allocate(size))
        heap.fresh_bytes = 0
        heap.free(heap.allocate(size))
        assert heap.fresh_bytes == again


def test_a_free_top_goes_back_unless_it_is_kept() -> None:
    blocks = tuple(Block(16 * MIB, index) for index in range(12))
    events = tuple((index, index) for index in range(12)) + tuple((index, -13) for index in reversed(range(12)))
    step = Allocations(blocks, events)
    assert fresh_bytes(step, trims=True) > 64 * MIB
    assert fresh_bytes(step, trims=False) == 0


@given(st.lists(st.tuples(st.integers(1, 64 * MIB), st.integers(0, 10)), max_size=60), st.booleans())
def test_a_heap_gives_out_each_byte_once(asked: list[tuple[int, int]], trims: bool) -> None:
    heap = Heap(trims)
    held: list[tuple[int, int]] = []
    for size, victim in asked:
        place = heap.allocate(size)
        assert all(place + size <= other or other + length <= place for other, length in held if min(place, other) >= 0)
        held.append((place, size))
        if victim < len(held):
            heap.free(held.pop(victim)[0])
    for place, _ in held:
        heap.free(place)
    assert not heap._holes, "everything freed is one with the top"
