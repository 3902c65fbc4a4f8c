"""Nested numbers become pixels exactly, or the first value that does not fit is named."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrifty.errors import RequestError
from thrifty.serve.pixels import from_base64, from_flat, from_nested, is_base64, shown

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3]))


@given(shape=SHAPES, seed=st.integers(0, 99), real=st.booleans())
def test_pixels_survive_json(shape: tuple[int, ...], seed: int, real: bool) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    numbers = pixels.astype(float) if real else pixels
    assert np.array_equal(from_nested(numbers.tolist(), shape), pixels)
    assert np.array_equal(from_flat(numbers.ravel().tolist(), shape), pixels)


WRONG = st.sampled_from([-1, 256, 0.5, 2**70, 10**400, 1e300, "1", None, True, {}, [], [1]])


@given(shape=SHAPES, value=WRONG, data=st.data())
def test_one_wrong_value_is_refused_wherever_it_stands(shape: tuple[int, ...], value: Any, data: st.DataObject) -> None:
    nested = np.zeros(shape, int).tolist()
    place = [data.draw(st.integers(0, size - 1)) for size in shape]
    nested[place[0]][place[1]][place[2]] = value
    flat = np.zeros(shape, int).ravel().tolist()
    flat[data.draw(st.integers(0, len(flat) - 1))] = value
    for ask in (lambda: from_nested(nested, shape), lambda: from_flat(flat, shape)):
        with pytest.raises(RequestError) as refused:
            ask()
        assert refused.value.status == 400


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([[[1], [2]]], "Encountered list at unexpected size: 1 at level: 0 expected size: 2"),
        ([[[1], [2]], [[1]]], "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ([[[1], [2]], [[1], [[2]]]], "Encountered list at unexpected level: 3 expected < 3"),
        ([[[1], [2]], [[1], 2]], r"JSON Value: 2 found at incorrect level: 3 .* Expected at level: 3"),
        ([[[1], [2]], [[1], ["a"]]], 'JSON Value: "a" Type: String is not of expected type: uint8'),
        ([[[1], [2]], [[1], [True]]], "JSON Value: true Type: True is not of expected type: uint8"),
        ([[[1], [2]], [[1], [300]]], "JSON Value: 300 Type: Number is not of expected type: uint8"),
        ([[[1], [2]], [[1], [1.5]]], "JSON Value: 1.5 Type: Number is not of expected type: uint8"),
    ],
)
def test_the_first_fault_is_named(value: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        from_nested(value, (2, 2, 1))


@given(st.binary(max_size=60))
def test_base64_with_and_without_padding(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    assert from_base64(text) == from_base64(text.rstrip("=")) == raw


@given(st.text(max_size=20))
def test_no_text_breaks_base64(text: str) -> None:
    try:
        from_base64(text)
    except RequestError as error:
        assert error.what == "Unable to base64 decode"


def test_values_in_errors_are_short() -> None:
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    assert len(shown(["x" * 10_000])) < 300
    assert shown(deep) == "..."
    assert is_base64({"b64": "x"})
    assert not is_base64({"b64": "x", "y": 1})
