"""ViT against torch's own encoder with the same weights, and as data fits it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thrifty.errors import JobError
from thrifty.models import resolve
from thrifty.models.init import initialise
from thrifty.models.layers import use_attention
from thrifty.models.vit import NORM_EPS, ViT
from thrifty.optim.groups import sort_parameters
from thrifty.spec import Dataset
from thrifty.testing import check_model

WIDTH, HEADS, SIDE, CLASSES = 16, 2, 8, 3


def vit() -> ViT:
    model = ViT(patch=4, layers=2, width=WIDTH, heads=HEADS, channels=3, side=SIDE, classes=CLASSES)
    initialise(model, {"first.*": "normal", "positions.*": "normal", "*": "xavier_normal"}, 0)
    return model


def pixels(images: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(images, 3, SIDE, SIDE, dtype=dtype, generator=torch.Generator().manual_seed(0))


class Reference(nn.Module):
    """The same network out of torch's own encoder, its patches cut by `unfold`."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", layer_norm_eps=NORM_EPS, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, len(model.blocks), enable_nested_tensor=False)
        self.model = model
        pairs = {
            "self_attn.in_proj_": "attention.qkv.",
            "self_attn.out_proj.": "attention.proj.",
            "linear1.": "mlp.up.",
            "linear2.": "mlp.proj.",
            "norm1.": "norm_1.",
            "norm2.": "norm_2.",
        }
        for mine, theirs in zip(model.blocks, self.encoder.layers, strict=True):
            own = mine.state_dict()
            theirs.load_state_dict({a + kind: own[b + kind] for a, b in pairs.items() for kind in ("weight", "bias")})

    def forward(self, x_BCSS: Tensor) -> Tensor:
        model = self.model
        windows_BPN = nn.functional.unfold(x_BCSS, 4, stride=4).transpose(1, 2)
        patches_BPW = windows_BPN @ model.patches.weight.flatten(1).T + model.patches.bias
        first_B1W = model.first.weight.repeat(len(x_BCSS), 1, 1)
        x_BTW = torch.cat((first_B1W, patches_BPW), 1) + model.positions.weight
        logits: Tensor = model.fc(model.norm(self.encoder(x_BTW))[:, 0])
        return logits


def test_logits_and_gradients_are_those_of_torchs_encoder() -> None:
    model, x_BCSS = vit().double(), pixels()
    reference = Reference(model).double()
    pull = torch.randn(4, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine, theirs = model(x_BCSS), reference(x_BCSS)
    torch.testing.assert_close(mine, theirs)
    shared = [model.patches.weight, model.first.weight, model.positions.weight, model.fc.weight]
    for got, expected in zip(
        torch.autograd.grad(mine, shared, pull), torch.autograd.grad(theirs, shared, pull), strict=True
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.slow
def test_it_keeps_the_contract_of_a_model() -> None:
    check_model(vit, {"x": pixels(8, torch.float32).numpy(), "y": np.arange(8) % CLASSES}, "classify")


def test_every_way_of_attention_gives_the_same() -> None:
    model, x_BCSS = vit().double(), pixels()
    expected = model(x_BCSS)
    for way in ("written_out", "sdpa"):
        torch.testing.assert_close(use_attention(model, {"float64 training": way})(x_BCSS), expected)


def test_channels_last_computes_the_same() -> None:
    model, x_BCSS = vit().double(), pixels()
    expected = model(x_BCSS)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x_BCSS.contiguous(memory_format=torch.channels_last)), expected)


def test_the_kinds_of_its_parameters() -> None:
    model = vit()
    kinds = sort_parameters(model).by_kind
    assert [*map(id, kinds["input"])] == [id(model.patches.weight)]
    assert {*map(id, kinds["embedding"])} == {id(model.first.weight), id(model.positions.weight)}
    assert [*map(id, kinds["head"])] == [id(model.fc.weight)]
    assert len(kinds["matrix"]) == 8 and not kinds["convolution"]


@pytest.mark.parametrize(
    ("name", "side", "mend"), [("vit-nano", 30, "28 or 32"), ("vit-b16", 28, "16 or 32"), ("vit-b16", 8, "16")]
)
def test_images_that_do_not_divide_into_patches(name: str, side: int, mend: str) -> None:
    dataset = Dataset.model_construct(kind="image", task="classify", shape=(3, side, side), labels=("a", "b"))
    with pytest.raises(JobError, match=rf"images of {side} pixels a side do not divide.* Set data\.size: {mend}\."):
        resolve(name, dataset)
