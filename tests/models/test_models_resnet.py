"""Residual networks at every image size, and with weights that others trained."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from thrifty.models import MODELS
from thrifty.models.resnet import PadShortcut, ResNet

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"


def resnet(name: str, *, channels: int = 3, classes: int = 10) -> ResNet:
    return ResNet(**MODELS[name].arguments, channels=channels, classes=classes)


@settings(max_examples=8, deadline=None)
@given(
    name=st.sampled_from(["resnet8", "resnet18"]),
    height=st.integers(4, 70),
    width=st.integers(4, 70),
    channels=st.sampled_from([1, 3]),
)
def test_any_image_size(name: str, height: int, width: int, channels: int) -> None:
    with torch.device("meta"):
        model = resnet(name, channels=channels, classes=5).eval()
        assert model(torch.empty(2, channels, height, width)).shape == (2, 5)


def test_channels_last_computes_the_same() -> None:
    torch.manual_seed(0)
    model, x_BCHW = resnet("resnet8").double().eval(), torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = model(x_BCHW)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x_BCHW.contiguous(memory_format=torch.channels_last)), expected)


def test_option_a_takes_every_second_pixel_and_adds_zeros() -> None:
    x_BCHW = torch.arange(2 * 4 * 4, dtype=torch.float32).view(1, 2, 4, 4)
    y_BCHW = PadShortcut(2, 4, 2)(x_BCHW)
    assert y_BCHW.shape == (1, 4, 2, 2)
    assert torch.equal(y_BCHW[:, 1:3], x_BCHW[:, :, ::2, ::2])
    assert not y_BCHW[:, 0].any() and not y_BCHW[:, 3].any()


def test_depth_is_what_the_name_says() -> None:
    for name in ("resnet8", "resnet20", "resnet110", "resnet18", "resnet50", "resnet152"):
        with torch.device("meta"):
            model = resnet(name)
        layers = [n for n, p in model.named_parameters() if p.dim() >= 2 and "downsample" not in n]
        assert len(layers) == int(name.removeprefix("resnet"))


def _cifar_test_images(count: int) -> tuple[Tensor, Tensor]:
    """The first images of each class, scaled as the checkpoint wants them."""
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    images, labels = [], []
    with tarfile.open(SHARED / "cifar10_jpeg" / "cifar10_jpeg.tar.xz") as archive:
        for member in archive:
            parts = member.name.split("/")
            if parts[0] != "test" or not member.isfile() or labels.count(names.index(parts[1])) >= count // 10:
                continue
            file = archive.extractfile(member)
            assert isinstance(file, io.BufferedReader)
            images.append(cv2.cvtColor(cv2.imdecode(np.frombuffer(file.read(), np.uint8), 1), cv2.COLOR_BGR2RGB))
            labels.append(names.index(parts[1]))
            if len(labels) == count:
                break
    x_BHWC = torch.from_numpy(np.stack(images)).float() / 255
    x_BHWC = (x_BHWC - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    return x_BHWC.permute(0, 3, 1, 2), torch.tensor(labels)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ckpt_resnet_cifar10").is_dir(), reason="needs ../shared/data, which is not here")
def test_weights_trained_elsewhere_do_here_what_they_did_there() -> None:
    """A published ResNet-20 scores 80.85 % on 2,000 of these JPEG images by an independent numpy forward pass."""
    weights = load_file(SHARED / "ckpt_resnet_cifar10" / "resnet20.safetensors")
    model = resnet("resnet20").eval()
    found = {name.replace("linear.", "fc."): value for name, value in weights.items()}
    missing, unexpected = model.load_state_dict(found, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    x_BCHW, y_B = _cifar_test_images(500)
    with torch.inference_mode():
        accuracy = (model(x_BCHW).argmax(1) == y_B).float().mean().item()
    # 500 images: a standard deviation is 1.8 %
    assert 0.76 < accuracy < 0.86
