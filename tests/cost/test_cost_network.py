"""Collectives: what each must move at least, and how far its group reaches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.cost.calibrations import Calibration
from thrifty.cost.network import (
    Links,
    exchange_seconds,
    gather_seconds,
    group_bandwidth,
    links_of,
    message_seconds,
    reduce_seconds,
)
from thrifty.hardware.cluster import find_cluster

LINKS = Links(
    per_node=8, intra=300e9, inter=25e9, messages=20e9, exchange=1.0, intra_latency_s=1e-5, inter_latency_s=3e-5
)


def test_links_are_shares_of_the_clusters() -> None:
    plain = Calibration(name="a / b", family="a", software="b", intra=0.5, inter=0.4)
    cluster = find_cluster("a100-80g:8x2")
    links = links_of(cluster, plain)
    assert links.intra == 0.5 * cluster.intra.bytes_per_second.value
    assert links.inter == 0.4 * cluster.inter.bytes_per_second.value


@pytest.mark.parametrize(
    ("members", "stride", "expected"),
    [(8, 1, 300e9), (2, 4, 300e9), (16, 1, 200e9), (4, 8, 25e9), (64, 4, 50e9), (2, 16, 25e9)],
)
def test_bandwidth_by_reach(members: int, stride: int, expected: float) -> None:
    assert group_bandwidth(LINKS, members, stride) == expected


@given(moved=st.floats(1e6, 1e11), members=st.integers(2, 64))
def test_an_all_reduce_is_two_gathers(moved: float, members: int) -> None:
    assert reduce_seconds(LINKS, moved, members) <= 2 * gather_seconds(LINKS, moved, members)
    assert gather_seconds(LINKS, moved, members) >= moved * (members - 1) / members / LINKS.intra


def test_large_all_reduce_in_a_node() -> None:
    assert reduce_seconds(LINKS, 8e9, 8) == pytest.approx(2 * 7 / 8 * 8e9 / 300e9, rel=0.01)


def test_nothing_to_send() -> None:
    assert reduce_seconds(LINKS, 1e9, 1) == gather_seconds(LINKS, 0, 8) == exchange_seconds(LINKS, 1e9, 1) == 0
    assert message_seconds(LINKS, 0, 8) == 0


def test_exchange_across_nodes_is_bound_by_the_network() -> None:
    assert exchange_seconds(LINKS, 1e9, 64) == pytest.approx(1e9 * 56 / 64 / 25e9, rel=0.05)
    assert exchange_seconds(LINKS, 1e9, 8) == pytest.approx(1e9 * 7 / 8 / 300e9, rel=0.05)


def test_messages_stay_in_the_node_when_they_can() -> None:
    assert message_seconds(LINKS, 1e9, 4) < message_seconds(LINKS, 1e9, 8) == pytest.approx(1e9 / 20e9, rel=0.01)
