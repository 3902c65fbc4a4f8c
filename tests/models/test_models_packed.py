"""Packed texts give the logits and gradients of padded ones, whatever their lengths."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from thrifty.data.texts.packing import pack, places_of
from thrifty.data.texts.word_pieces import pad
from thrifty.models.bert import BERT
from thrifty.models.init import initialise
from thrifty.models.inputs import input_of, to_tensors
from thrifty.models.layers import use_attention
from thrifty.models.losses import cross_entropy
from thrifty.models.packed import Packed
from thrifty.models.recompute import recomputing

LENGTH, VOCABULARY, CLASSES = 40, 13, 3
TEXTS = st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=LENGTH), min_size=1, max_size=20)


@functools.cache
def model() -> BERT:
    made = BERT(vocabulary=VOCABULARY, length=LENGTH, layers=2, width=8, heads=2, classes=CLASSES)
    initialise(made, "xavier_normal", 0)
    return made.double()


def packed(texts: list[list[int]], labels: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A packed batch, and the number of each of its texts; fillers have the number of texts."""
    order, lengths = pack(np.array([len(text) for text in texts]))
    row = [
        token
        for number, length in zip(order, lengths, strict=True)
        for token in (texts[number] if number < len(texts) else [0] * length)
    ]
    y = np.append(labels, -100)[order]
    return {"x": np.array([row]), "y": y, **places_of(lengths)}, order


def gradients(batch: dict[str, np.ndarray]) -> tuple[Tensor, ...]:
    loss_sum, weight = cross_entropy(model(), to_tensors(batch))
    return (weight, loss_sum.detach(), *torch.autograd.grad(loss_sum, list(model().parameters())))


@given(texts=TEXTS)
@settings(max_examples=25, deadline=None)
def test_packed_is_padded(texts: list[list[int]]) -> None:
    y = np.arange(len(texts)) % CLASSES
    batch, order = packed(texts, y)
    whole = {"x": pad(texts, LENGTH), "y": y}
    with torch.no_grad():
        logits, expected = (model()(input_of(to_tensors(each))) for each in (batch, whole))
    real = order < len(texts)
    torch.testing.assert_close(logits[real], expected[order[real]], rtol=1e-9, atol=1e-12)
    for got, wanted in zip(gradients(batch), gradients(whole), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("way", "again"), [("written_out", "selective"), ("in_chunks", "none"), ("sdpa", "full")])
def test_however_it_is_attended_and_computed_again(way: str, again: str) -> None:
    generator = np.random.default_rng(0)
    texts = [[int(n) for n in generator.integers(1, VOCABULARY, length)] for length in (1, 40, 7, 8, 9, 23, 2, 31, 5)]
    y = np.arange(len(texts)) % CLASSES
    use_attention(recomputing(model(), again), {"float64 training": way})
    found = gradients(packed(texts, y)[0])
    use_attention(recomputing(model(), "none"), {})
    for got, wanted in zip(found, gradients({"x": pad(texts, LENGTH), "y": y}), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)


def test_what_fills_the_row_teaches_nothing() -> None:
    texts, y = [[1, 2, 3], [4, 5]], np.array([0, 1])
    batch, order = packed(texts, y)
    assert (order == len(texts)).any()
    other = {**batch, "x": np.where(batch["x"] == 0, 7, batch["x"])}
    for got, wanted in zip(gradients(other), gradients(batch), strict=True):
        assert torch.equal(got, wanted)


def test_a_batch_is_packed_where_places_are_told() -> None:
    tensors = to_tensors(packed([[1], [2, 3]], np.array([0, 1]))[0])
    found = input_of(tensors)
    assert isinstance(found, Packed) and found.tokens is tensors["x"]
    assert input_of({"x": tensors["x"], "y": tensors["y"]}) is tensors["x"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_learns_of_packed_texts_what_a_processor_does() -> None:
    generator = np.random.default_rng(1)
    texts = [[int(n) for n in generator.integers(1, VOCABULARY, length)] for length in (40, 3, 12, 9, 21, 30, 2, 17)]
    batch, _ = packed(texts, np.arange(len(texts)) % CLASSES)
    expected = gradients(batch)
    there = copy.deepcopy(model()).cuda()
    loss_sum, weight = cross_entropy(there, to_tensors(batch, "cuda"))
    found = (weight, loss_sum.detach(), *torch.autograd.grad(loss_sum, list(there.parameters())))
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got.cpu(), wanted, rtol=1e-6, atol=1e-9)
