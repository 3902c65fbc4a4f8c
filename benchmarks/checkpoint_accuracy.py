"""What a published ResNet-20 scores as our `resnet20`, on CIFAR-10's 10,000 test images.

    python -m benchmarks.checkpoint_accuracy

Weights of Idelbayev's "Proper ResNet implementation for CIFAR10", 0.9173 as published. The images here are JPEG files,
on 2,000 of which an independent forward pass in numpy scores 0.8085: they lost some of what the network looks at.
Seconds are of decoding and the forward pass in fp32, one process.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks import real_data
from benchmarks.record import record
from thrifty import hardware
from thrifty.models import MODELS
from thrifty.models.resnet import ResNet

BATCH = 500
# of ImageNet, by which it was trained
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def published() -> ResNet:
    """Return the network with its weights; its last layer goes by another name there."""
    model = ResNet(**MODELS["resnet20"].arguments, channels=3, classes=10)
    weights = load_file(real_data.shared("ckpt_resnet_cifar10/resnet20.safetensors"))
    model.load_state_dict({name.replace("linear.", "fc."): value for name, value in weights.items()})
    return model.eval()


def test_images() -> tuple[Tensor, Tensor]:
    """Return uint8 images [B, H, W, C] in RGB, and labels in the order of the classes' names."""
    folders = sorted(each for each in real_data.cifar().iterdir() if each.is_dir())
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.glob("test-*"))]
    return torch.from_numpy(np.stack([_rgb(path) for path, _ in files])), torch.tensor([label for _, label in files])


def _rgb(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path))
    assert pixels is not None, f"{path} is no image"
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


@torch.inference_mode()
def accuracy(model: ResNet, x_BHWC: Tensor, y_B: Tensor) -> float:
    """Score a model batch by batch."""
    right = 0
    for x, y in zip(x_BHWC.split(BATCH), y_B.split(BATCH), strict=True):
        scaled = (x.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        right += int((model(scaled.permute(0, 3, 1, 2)).argmax(1) == y).sum())
    return right / len(y_B)


def main() -> int:
    """Score it, print the figures, and write the report."""
    model = published()
    real_data.cifar()  # unpacked once, and not timed
    began = time.perf_counter()
    x_BHWC, y_B = test_images()
    assert len(y_B) == 10_000, f"{len(y_B)} test images, of 10,000"
    found = {"checkpoint_resnet20_accuracy": [accuracy(model, x_BHWC, y_B)]}
    found["checkpoint_resnet20_seconds"] = [time.perf_counter() - began]
    record("checkpoint_accuracy", hardware.here(kind="cpu"), __doc__ or "", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
