"""Speech: padding changes no answer, and what it says of time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from thrifty.models.init import initialise
from thrifty.models.speech import PADDING, Speech

BANDS, OUTPUTS = 10, 5


def speech(transcribes: bool = False, bands: int = BANDS) -> Speech:
    model = Speech(
        bands=bands, channels=4, layers=2, width=16, heads=2, kernel=5, outputs=OUTPUTS, transcribes=transcribes,
        drop=0.1,
    )  # fmt: skip
    initialise(model, "default", 0)
    return model.eval()


def sound(frames: int, rows: int = 1, bands: int = BANDS) -> Tensor:
    return torch.randn(rows, frames, bands, generator=torch.Generator().manual_seed(frames))


def padded(x_BTM: Tensor, more: int) -> Tensor:
    return torch.cat([x_BTM, torch.full((len(x_BTM), more, x_BTM.shape[2]), PADDING)], 1)


@pytest.mark.parametrize("frames", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("more", [1, 3, 8, 40])
def test_padding_changes_no_class(frames: int, more: int) -> None:
    model, x_BTM = speech(), sound(frames)
    torch.testing.assert_close(model(padded(x_BTM, more)), model(x_BTM), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 6, 17])
def test_padding_changes_no_transcript(frames: int) -> None:
    model, x_BTM = speech(transcribes=True), sound(frames)
    alone, beside = model(x_BTM), model(padded(x_BTM, 24))
    end = -(-frames // 4)
    assert alone.shape == (1, end, OUTPUTS)
    torch.testing.assert_close(beside[:, :end], alone, rtol=1e-4, atol=1e-5)
    after = beside[:, end:].softmax(-1)
    assert (after[..., 0] == 1).all()


def test_a_batch_answers_each_as_if_alone() -> None:
    model = speech()
    rows = [sound(frames) for frames in (9, 24, 15)]
    together = model(torch.cat([padded(each, 24 - each.shape[1]) for each in rows]))
    torch.testing.assert_close(together, torch.cat([model(each) for each in rows]), rtol=1e-4, atol=1e-5)


def test_gradients_pass_no_padding() -> None:
    model = speech().train()
    model.drop.p = 0.0
    x_BTM = padded(sound(6), 10).requires_grad_()
    model(x_BTM).sum().backward()
    assert x_BTM.grad is not None
    assert x_BTM.grad[:, :6].abs().sum() > 0
    assert not x_BTM.grad[:, 6:].any()
    assert all(torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None)


def test_odd_widths_of_frames_are_taken() -> None:
    assert speech(bands=13)(sound(20, 2, 13)).shape == (2, OUTPUTS)


def test_initial_answers_are_nearly_even() -> None:
    losses = -speech()(sound(40, 64)).log_softmax(-1).mean(0)
    assert losses.mean().item() == pytest.approx(np.log(OUTPUTS), rel=0.4)
