"""BERT against torch's own encoder with the same weights; padding changes no answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thrifty.models.bert import BERT, PADDING_ID
from thrifty.models.init import initialise
from thrifty.models.layers import ATTENTION
from thrifty.testing import check_model

VOCABULARY, LENGTH, WIDTH, HEADS, CLASSES = 40, 12, 16, 2, 3


def bert() -> BERT:
    model = BERT(vocabulary=VOCABULARY, length=LENGTH, layers=3, width=WIDTH, heads=HEADS, classes=CLASSES)
    initialise(model, "xavier_normal", 0)
    return model


def texts(rows: int = 4, length: int = LENGTH) -> Tensor:
    """Tokens of texts whose lengths differ, one of them whole."""
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(1, VOCABULARY, (rows, length), generator=generator)
    for row in range(1, rows):
        tokens_BT[row, length - 2 * row :] = PADDING_ID
    return tokens_BT


class Reference(nn.Module):
    """The same network out of torch's own encoder."""

    def __init__(self, model: BERT) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, len(model.blocks), enable_nested_tensor=False)
        self.model = model
        with torch.no_grad():
            for mine, theirs in zip(model.blocks, self.encoder.layers, strict=True):
                own = mine.state_dict()
                pairs = {
                    "self_attn.in_proj_": "attention.qkv.",
                    "self_attn.out_proj.": "attention.proj.",
                    "linear1.": "mlp.up.",
                    "linear2.": "mlp.proj.",
                    "norm1.": "norm_1.",
                    "norm2.": "norm_2.",
                }
                theirs.load_state_dict(
                    {a + kind: own[b + kind] for a, b in pairs.items() for kind in ("weight", "bias")}
                )

    def forward(self, tokens_BT: Tensor) -> Tensor:
        model, padding_BT = self.model, tokens_BT == PADDING_ID
        x_BTC = model.norm_0(model.tokens(tokens_BT) + model.positions.weight[: tokens_BT.shape[1]])
        x_BTC = model.norm(self.encoder(x_BTC, src_key_padding_mask=padding_BT))
        rows = [x_BTC[b, ~padding_BT[b]].mean(0) for b in range(len(tokens_BT))]
        logits: Tensor = model.fc(torch.stack(rows))
        return logits


def test_logits_and_gradients_are_those_of_torchs_encoder() -> None:
    model = bert().double()
    reference, tokens_BT = Reference(model).double(), texts()
    pull = torch.randn(4, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine, theirs = model(tokens_BT), reference(tokens_BT)
    torch.testing.assert_close(mine, theirs)
    (expected,) = torch.autograd.grad(theirs, [model.tokens.weight], pull)
    (got,) = torch.autograd.grad(mine, [model.tokens.weight], pull)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("more", [1, 5])
def test_padding_changes_no_answer(more: int) -> None:
    model, tokens_BT = bert().double().eval(), texts(length=LENGTH - 5)
    padded_BT = nn.functional.pad(tokens_BT, (0, more), value=PADDING_ID)
    torch.testing.assert_close(model(padded_BT), model(tokens_BT))


def test_a_text_is_alone_in_its_batch() -> None:
    model, tokens_BT = bert().double().eval(), texts()
    together = model(tokens_BT)
    for row, tokens_T in enumerate(tokens_BT):
        torch.testing.assert_close(model(tokens_T[tokens_T != PADDING_ID][None]), together[row : row + 1])


def test_it_keeps_the_contract_of_a_model() -> None:
    batch = {"x": texts(8, LENGTH + 4)[:, :LENGTH].numpy(), "y": np.arange(8) % CLASSES}
    check_model(bert, batch, "classify")


@pytest.mark.parametrize("name", ATTENTION)
def test_every_way_of_attention_takes_the_bias(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, HEADS, 6, 8, dtype=torch.float64, generator=generator).unbind(0)
    bias_B11S = torch.zeros(2, 1, 1, 6, dtype=torch.float64)
    bias_B11S[1, ..., 4:] = -torch.inf
    out = ATTENTION[name](q, k, v, False, bias_B11S)
    torch.testing.assert_close(out[0], ATTENTION[name](q[:1], k[:1], v[:1], False)[0])
    torch.testing.assert_close(out[1], ATTENTION[name](q[1:], k[1:, :, :4], v[1:, :, :4], False)[0])
