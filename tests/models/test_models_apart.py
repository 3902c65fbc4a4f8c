"""Documents of a window that lie apart are read as if each stood alone."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from thrifty.data.samples import apart
from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.inputs import input_of, to_tensors
from thrifty.models.layers import use_attention
from thrifty.models.llama import Llama
from thrifty.models.losses import cross_entropy
from thrifty.models.recompute import recomputing

END, LENGTH, VOCABULARY = 0, 24, 13
FAMILIES = ("gpt", "llama")
DOCUMENTS = st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=30), min_size=1, max_size=12)


@functools.cache
def model(family: str) -> nn.Module:
    sizes = {"vocabulary": VOCABULARY, "length": LENGTH, "layers": 2, "width": 16, "heads": 4}
    made = GPT(**sizes) if family == "gpt" else Llama(**sizes, kv_heads=2, ffn=32, tied=True)
    initialise(made, "xavier_normal", 0)
    return made.double().eval()


def windows(documents: list[list[int]]) -> dict[str, np.ndarray]:
    """Windows of a stream as they are made of a corpus, the last one filled up."""
    stream = [token for document in documents for token in (END, *document)] + [END]
    x, y = stream[:-1], stream[1:]
    over = -len(x) % LENGTH
    shape = (-1, LENGTH)
    return {
        "x": np.reshape([*x, *[END] * over], shape),
        "y": np.reshape([*y, *[-100] * over], shape),
    }


def alone(family: str, batch: dict[str, np.ndarray]) -> tuple[list[Tensor], Tensor, int]:
    """Logits of each document as far as a window has it, computed by itself; their summed loss, and its count."""
    logits, loss, count = [], torch.zeros((), dtype=torch.float64), 0
    for x, y in zip(batch["x"].tolist(), batch["y"].tolist(), strict=True):
        real = sum(each != -100 for each in y)
        begins = sorted({0, *(at for at in range(real) if x[at] == END)})
        for begin, end in zip(begins, [*begins[1:], len(x)], strict=True):
            piece = {"x": torch.tensor([x[begin:end]]), "y": torch.tensor([y[begin:end]])}
            logits.append(model(family)(piece["x"])[0])
            part, answers = cross_entropy(model(family), piece)
            loss, count = loss + part, count + int(answers)
    return logits, loss, count


@pytest.mark.parametrize("family", FAMILIES)
def test_two_documents_of_a_window(family: str) -> None:
    batch = {"x": np.array([[END, 5, 6, 7, END, 8, 9]]), "y": np.array([[5, 6, 7, END, 8, 9, END]])}
    own = model(family)
    with torch.no_grad():
        logits = own(input_of(to_tensors(apart(batch, END))))[0]
        first, second = own(torch.tensor([[END, 5, 6, 7]]))[0], own(torch.tensor([[END, 8, 9]]))[0]
        joined = own(torch.from_numpy(batch["x"]))[0]
    torch.testing.assert_close(logits, torch.cat((first, second)), rtol=1e-9, atol=1e-12)
    assert (joined[4:] - second).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
@given(documents=DOCUMENTS)
@settings(max_examples=15, deadline=None)
def test_documents_apart_are_documents_alone(family: str, documents: list[list[int]]) -> None:
    batch = windows(documents)
    expected, loss, count = alone(family, batch)
    packed = to_tensors(apart(batch, END))
    found, answers = cross_entropy(model(family), packed)
    assert int(answers) == count == sum(len(each) + 1 for each in documents)
    torch.testing.assert_close(found, loss, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(family)(input_of(packed))[0], torch.cat(expected), rtol=1e-9, atol=1e-9)
    weights = list(model(family).parameters())
    for got, wanted in zip(torch.autograd.grad(found, weights), torch.autograd.grad(loss, weights), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("way", "again"), [("written_out", "selective"), ("in_chunks", "none"), ("sdpa", "full")])
def test_however_they_are_attended_and_computed_again(family: str, way: str, again: str) -> None:
    batch = windows([[3, 4], [5] * 30, [6, 7, 8], [9], [2] * 20])
    _, loss, _ = alone(family, batch)
    wanted = torch.autograd.grad(loss, list(model(family).parameters()))
    use_attention(recomputing(model(family), again), {"float64 training": way})
    found = cross_entropy(model(family), to_tensors(apart(batch, END)))[0]
    got = torch.autograd.grad(found, list(model(family).parameters()))
    use_attention(recomputing(model(family), "none"), {})
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
