"""The fast convolutional network: its first layer whitens real images, its others begin near the identity."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.images.image import decode, fit, normalise
from thrifty.models import MODELS
from thrifty.models.fast_convnet import FastConvNet, whitening
from thrifty.models.init import initialise


def fast(*, channels: int = 3, classes: int = 10) -> FastConvNet:
    return FastConvNet(**MODELS["convnet-fast"].arguments, channels=channels, classes=classes)


@settings(max_examples=4, deadline=None)
@given(height=st.integers(9, 70), width=st.integers(9, 70), channels=st.sampled_from([1, 3]))
def test_any_image_size(height: int, width: int, channels: int) -> None:
    with torch.device("meta"):
        model = fast(channels=channels, classes=5).eval()
        assert model(torch.empty(2, channels, height, width)).shape == (2, 5)


@pytest.mark.parametrize("channels", [1, 3])
def test_filters_are_apart_and_come_in_both_signs(channels: int) -> None:
    filters = whitening(channels).flatten(1)
    half = len(filters) // 2
    assert half == 4 * channels and torch.equal(filters[:half], -filters[half:])
    apart = F.normalize(filters[:half]) @ F.normalize(filters[:half]).mT
    torch.testing.assert_close(apart, torch.eye(half), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["china", "flower"])
def test_photographs_come_out_whiter(name: str, channels: int) -> None:
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    raw = (Path(package.origin).parent / f"datasets/images/{name}.jpg").read_bytes()
    # as small as the images that such a network is for
    image = fit(decode(raw, max_pixels=10**6), size=96, color="gray" if channels == 1 else "rgb", crop="center")
    mean, std = ((image / 255).reshape(-1, channels)).mean(0), ((image / 255).reshape(-1, channels)).std(0)
    x = torch.from_numpy(normalise(image[None], mean.tolist(), std.tolist()))
    before = torch.linalg.eigvalsh(torch.cov(F.unfold(x, 2)[0]))
    after = torch.linalg.eigvalsh(torch.cov(F.conv2d(x, whitening(channels))[0, : 4 * channels].flatten(1)))
    assert after[-1] / after[0] < before[-1] / before[0] / 3


def test_initial_weights_carry_the_input_through() -> None:
    model = fast()
    says = initialise(model, "default", 0)
    assert "identity" in says
    weight = model.groups[1].conv1.weight
    assert weight.shape == (256, 64, 3, 3)
    torch.testing.assert_close(weight[:64, :, 1, 1], torch.eye(64))
    assert not weight[:64, :, 0].any() and weight[64:].std().item() == pytest.approx(
        (1 / (3 * 64 * 9)) ** 0.5, rel=0.02
    )


def test_the_first_layer_is_not_learned_but_kept() -> None:
    model = fast()
    assert "filters" not in dict(model.named_parameters()) and "filters" in model.state_dict()
