"""The published BERT keeps the contract, and padding changes no answer; the exchange compares it with transformers'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thrifty.data.texts.packing import pack, places_of
from thrifty.models import exchange
from thrifty.models.bert_original import OriginalBERT
from thrifty.models.init import initialise
from thrifty.models.inputs import input_of, to_tensors
from thrifty.spec import ModelPlan
from thrifty.testing import check_model

VOCABULARY, LENGTH, CLASSES, SEPARATOR = 40, 12, 3, 3
# pairs, one cut before its first text ended, and a single text
PAIRS = ([2, 7, 8, 3, 9, 3], [2, 5, 3, 6, 7, 8, 9, 10, 11, 3], [2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 3], [2, 6, 3])
SEGMENTS = ([0, 0, 0, 0, 1, 1], [0] * 3 + [1] * 7, [0] * 12, [0] * 3)


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


def paired() -> OriginalBERT:
    model = OriginalBERT(
        vocabulary=VOCABULARY, length=LENGTH, layers=2, width=32, heads=2, classes=CLASSES, separator=SEPARATOR
    )
    initialise(model, "xavier_normal", 0)
    return model.eval()


def padded(rows: tuple[list[int], ...]) -> torch.Tensor:
    return torch.tensor([[*row, *[0] * (LENGTH - len(row))] for row in rows])


@pytest.mark.slow
def test_segments_of_a_pair_are_those_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = paired()
    arguments = {"vocabulary": VOCABULARY, "length": LENGTH, "layers": 2, "width": 32, "heads": 2, "classes": CLASSES}
    plan = ModelPlan(name="a", family="bert_original", arguments={**arguments, "separator": SEPARATOR})
    exchange.save(model, plan, tmp_path, tuple("abc"))
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path, local_files_only=True).eval()
    x, kinds = padded(PAIRS), padded(SEGMENTS)
    with torch.no_grad():
        expected = theirs(x, attention_mask=(x != 0).long(), token_type_ids=kinds).logits
        torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)
        # they matter
        assert (theirs(x, attention_mask=(x != 0).long()).logits - expected)[:2].abs().max() > 1e-3


def test_packed_pairs_have_the_segments_of_padded_ones() -> None:
    order, lengths = pack(np.array([len(row) for row in PAIRS]))
    row = [token for number, length in zip(order, lengths, strict=True) for token in ([*PAIRS, [0] * length][number])]
    batch = to_tensors({"x": np.array([row]), **places_of(lengths)})
    model = paired().double()
    with torch.no_grad():
        found, expected = model(input_of(batch)), model(padded(PAIRS))
    real = order < len(PAIRS)
    torch.testing.assert_close(found[real], expected[order[real]], rtol=1e-9, atol=1e-12)
