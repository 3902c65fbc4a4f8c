"""The replay of the CUDA caching allocator against cases worked by hand from its source, and what must always hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.cost.cuda_allocator import MIB, replay, round_bytes, segment_bytes

KIB = 1 << 10

# events, expandable, then allocated, reserved and fragmentation in KiB. Worked by hand from alloc_found_block,
# should_split, get_allocation_size, try_merge_blocks and try_allocate_expandable_block.
CASES = {
    "one byte takes 512 of a 2 MiB segment": ([(1, 1)], False, (0.5, 2048, 2047.5)),
    "1 MiB is small: two fill one segment": ([(1, MIB), (2, MIB)], False, (2048, 2048, 0)),
    "a byte over 1 MiB is large: 20 MiB segment": ([(1, MIB + 1)], False, (1024.5, 20480, 19455.5)),
    "small and large never share": ([(1, 2 * MIB), (2, 1)], False, (2048.5, 20480 + 2048, 20479.5)),
    "10 MiB gets its own segment": ([(1, 10 * MIB)], False, (10240, 10240, 0)),
    "over 10 MiB rounds to 2 MiB; up to 1 MiB over is given whole": (
        [(1, 11 * MIB)], False, (12288, 12288, 0),
    ),
    "more than 1 MiB over is split off": ([(1, 10 * MIB + 512 * KIB)], False, (10752, 12288, 1536)),
    "8 MiB tensors: two a 20 MiB segment, a third opens another": (
        [(1, 8 * MIB), (2, 8 * MIB), (3, 8 * MIB)], False, (24576, 40960, 16384),
    ),
    "the smallest block that holds it, not the first": (
        [(1, 40 * MIB), (2, 30 * MIB), (1, 0), (2, 0), (3, 28 * MIB), (4, 38 * MIB)], False, (71680, 71680, 0),
    ),
    "neighbours join when freed, and hold what neither would": (
        [(1, 6 * MIB), (2, 6 * MIB), (3, 6 * MIB), (1, -1), (2, -1), (4, 12 * MIB)], False, (18432, 20480, 2048),
    ),
    "neighbours that are not free do not join": (
        [(1, 6 * MIB), (2, 6 * MIB), (3, 6 * MIB), (1, -1), (3, -1), (4, 12 * MIB)], False, (18432, 32768, 2048),
    ),
    "a freed segment is kept": ([(1, 64 * MIB), (1, 0), (2, 80 * MIB)], False, (81920, 147456, 65536)),
    "expandable grows by 20 MiB pages": ([(1, 21 * MIB)], True, (21504, 40960, 19456)),
    "expandable reuses its tail, and grows by what is missing": (
        [(1, 64 * MIB), (1, 0), (2, 80 * MIB)], True, (81920, 81920, 0),
    ),
    "expandable splits from 512 bytes on": (
        [(1, 19 * MIB + 512 * KIB), (2, MIB + 512 * KIB)], True, (21504, 40960, 19456),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_cases_worked_by_hand(name: str) -> None:
    events, expandable, (allocated, reserved, fragmentation) = CASES[name]
    peak = replay(events, expandable=expandable)
    assert (peak.allocated / KIB, peak.reserved / KIB) == (allocated, reserved)
    assert peak.fragmentation / KIB == fragmentation


def test_a_full_device_gives_back_whole_free_segments_alone() -> None:
    kept = [(1, 30 * MIB), (2, 30 * MIB), (1, 0), (3, 40 * MIB)]
    assert replay(kept, capacity_bytes=80 * MIB).out_of_memory_event is None
    # something lives in the first segment, so what is free of it cannot be given back
    pinned = [(1, 30 * MIB), (1, 0), (2, 5 * MIB), (3, 40 * MIB)]
    peak = replay(pinned, capacity_bytes=64 * MIB)
    assert (peak.out_of_memory_event, peak.allocated, peak.reserved) == (3, 30 * MIB, 30 * MIB)
    # pages at the end of an expandable segment go back, so only what is missing is asked for
    assert replay(pinned, capacity_bytes=64 * MIB, expandable=True).out_of_memory_event is None


def test_the_replay_ends_where_memory_does() -> None:
    peak = replay([(1, 10 * MIB), (2, 10 * MIB), (3, MIB)], capacity_bytes=15 * MIB)
    assert peak.out_of_memory_event == 1
    assert peak.reserved == 10 * MIB


def test_an_id_may_be_used_again_but_not_twice_at_once() -> None:
    assert replay([(1, MIB), (1, 0), (1, MIB)]).allocated == MIB
    with pytest.raises(AssertionError, match="alive"):
        replay([(1, MIB), (1, MIB)])
    with pytest.raises(AssertionError, match="not alive"):
        replay([(1, 0)])


def test_nothing_takes_nothing() -> None:
    peak = replay([])
    assert (peak.requested, peak.allocated, peak.reserved, peak.fragmentation) == (0, 0, 0, 0)


SIZES = st.one_of(st.integers(1, 3000), st.integers(1, 4 * MIB), st.integers(1, 60 * MIB))


@st.composite
def tapes(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Events that free only what lives, and free all of it in the end."""
    events: list[tuple[int, int]] = []
    alive: list[int] = []
    for name in range(draw(st.integers(1, 40))):
        events.append((name, draw(SIZES)))
        alive.append(name)
        while alive and draw(st.booleans()):
            events.append((alive.pop(draw(st.integers(0, len(alive) - 1))), 0))
    return events + [(name, -1) for name in alive]


@settings(deadline=None, max_examples=150)
@given(tapes(), st.booleans())
def test_requested_is_at_most_allocated_is_at_most_reserved(events: list[tuple[int, int]], expandable: bool) -> None:
    peak = replay(events, expandable=expandable)
    assert 0 < peak.requested <= peak.allocated <= peak.reserved
    assert 0 <= peak.fragmentation <= peak.reserved - peak.allocated
    assert events[peak.peak_event][1] > 0


@settings(deadline=None, max_examples=100)
@given(tapes(), st.booleans())
def test_once_all_is_freed_the_same_again_needs_no_more(events: list[tuple[int, int]], expandable: bool) -> None:
    once = replay(events, expandable=expandable)
    twice = replay([*events, *events], expandable=expandable)
    assert twice.allocated >= once.allocated
    # best fit may take other holes the second time, but a whole free pool holds what it held
    assert twice.requested == once.requested


@settings(deadline=None, max_examples=100)
@given(tapes(), st.booleans())
def test_memory_enough_for_the_unlimited_peak_is_enough(events: list[tuple[int, int]], expandable: bool) -> None:
    free = replay(events, expandable=expandable)
    assert replay(events, expandable=expandable, capacity_bytes=free.reserved) == free
    tight = replay(events, expandable=expandable, capacity_bytes=free.requested - 1)
    assert tight.out_of_memory_event is not None
    assert tight.reserved <= free.requested - 1


@given(st.integers(1, 200 * MIB))
def test_rounding_and_segments(size: int) -> None:
    rounded = round_bytes(size)
    assert rounded % 512 == 0
    assert size <= rounded < size + 512 + 511
    assert segment_bytes(rounded) >= rounded
    assert segment_bytes(rounded) % (2 * MIB) == 0
