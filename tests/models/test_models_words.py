"""A BERT without classes tells the word at each place, of packed texts as of padded ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from thrifty.data.texts.packing import places_of
from thrifty.models.bert import BERT
from thrifty.models.bert_original import OriginalBERT
from thrifty.models.init import initialise
from thrifty.models.inputs import input_of, to_tensors
from thrifty.testing import check_model

VOCABULARY, LENGTH = 40, 12
SIZES = {"vocabulary": VOCABULARY, "length": LENGTH, "layers": 2, "width": 32, "heads": 2}
MODELS = {"bert": lambda: BERT(**SIZES), "original": lambda: OriginalBERT(**SIZES)}


def made(name: str) -> nn.Module:
    model = MODELS[name]()
    initialise(model, "xavier_normal", 0)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_keeps_the_contract_of_a_model(name: str) -> None:
    draw = np.random.default_rng(0)
    x = draw.integers(1, VOCABULARY, (8, LENGTH))
    x[1, 5:] = 0
    y = np.where((draw.random(x.shape) < 0.3) & (x > 0), draw.integers(1, VOCABULARY, x.shape), -100)
    check_model(lambda: made(name), {"x": x, "y": y}, "language")


@pytest.mark.parametrize("name", MODELS)
def test_packed_texts_are_told_as_padded_ones(name: str) -> None:
    model = made(name).double().train()
    lengths = np.array([3, 5, 5, 11])
    texts = [torch.randint(1, VOCABULARY, (int(length),)) for length in lengths]
    batch = to_tensors({"x": torch.cat(texts)[None].numpy(), "y": np.zeros(1), **places_of(lengths)})
    told_TV = model(input_of(batch))[0]
    for text, end, length in zip(texts, np.cumsum(lengths), lengths, strict=True):
        torch.testing.assert_close(told_TV[end - length : end], model(text[None])[0])
