"""The published BERT keeps the contract, and padding changes no answer; the exchange compares it with transformers'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from thrifty.models.bert_original import OriginalBERT
from thrifty.models.init import initialise
from thrifty.testing import check_model

VOCABULARY, LENGTH, CLASSES = 40, 12, 3


def bert(init: str = "default") -> OriginalBERT:
    model = OriginalBERT(vocabulary=VOCABULARY, length=LENGTH, layers=2, width=32, heads=2, classes=CLASSES)
    initialise(model, init, 0)
    return model


@pytest.mark.parametrize("more", [1, 5])
def test_padding_changes_no_answer(more: int) -> None:
    model = bert("xavier_normal").double().eval()
    tokens_BT = torch.randint(1, VOCABULARY, (4, LENGTH - 5), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(nn.functional.pad(tokens_BT, (0, more))), model(tokens_BT))


def test_it_begins_as_its_authors_had_it() -> None:
    model = bert()
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            # a normal of 0.02, cut at two of it
            assert weight.abs().max() <= 0.04 and weight.std().item() == pytest.approx(0.02 * 0.88, rel=0.1), name


@pytest.mark.slow
def test_it_keeps_the_contract_of_a_model() -> None:
    draw = np.random.default_rng(0)
    x = draw.integers(1, VOCABULARY, (8, LENGTH))
    x[1, 5:] = 0
    check_model(lambda: bert("xavier_normal"), {"x": x, "y": draw.integers(CLASSES, size=8)}, "classify")
