"""wav2vec 2.0: padding changes no answer, norms are torch's where there is none, and what data fits it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_models_table import recordings, waves
from torch import Tensor, nn

from thrifty.errors import JobError
from thrifty.models import resolve
from thrifty.models.init import initialise
from thrifty.models.speech import PADDING
from thrifty.models.wav2vec2 import OverTime, Positions, Wav2Vec2, receptive
from thrifty.testing import check_model

FRAME, OUTPUTS = 20, 5
# of one window of the convolutions, 10 + 2 * 5 + 1 * 10 samples
WINDOW = 30


def wav2vec2(norm: str = "group", transcribes: bool = False, **more: Any) -> Wav2Vec2:
    sizes: dict[str, Any] = {
        "channels": [6, 6, 8], "kernels": [10, 3, 2], "strides": [5, 2, 2], "bias": norm == "layer", "window": 6,
        "groups": 2, "layers": 2, "width": 16, "heads": 2, "stable": norm == "layer", "projected": 12,
        "outputs": OUTPUTS,
    }  # fmt: skip
    model = Wav2Vec2(norm=norm, transcribes=transcribes, **{**sizes, **more})  # type: ignore[arg-type]
    initialise(model, "default", 0)
    return model.eval()


def wave(samples: int, rows: int = 1) -> Tensor:
    """Samples in frames, what fills the last one up is padding."""
    waves = torch.full((rows, -(-samples // FRAME) * FRAME), PADDING)
    waves[:, :samples] = torch.randn(rows, samples, generator=torch.Generator().manual_seed(samples))
    return waves.unflatten(1, (-1, FRAME))


def padded(x_BTM: Tensor, more: int) -> Tensor:
    return torch.cat([x_BTM, torch.full((len(x_BTM), more, FRAME), PADDING)], 1)


def test_a_window_is_what_one_frame_sees() -> None:
    assert receptive([10, 3, 2], [5, 2, 2]) == WINDOW


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("samples", [1, 29, 30, 50, 333])
def test_padding_changes_no_answer(norm: str, samples: int) -> None:
    x_BTM = wave(samples, 2)
    for transcribes in (False, True):
        model = wav2vec2(norm, transcribes)
        alone, beside = model(x_BTM), model(padded(x_BTM, 9))
        assert torch.isfinite(alone).all()
        if not transcribes:
            torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-5)
            continue
        end = max(1, (samples - WINDOW) // FRAME + 1)
        assert alone.shape == (2, x_BTM.shape[1], OUTPUTS)
        torch.testing.assert_close(beside[:, :end], alone[:, :end], rtol=1e-4, atol=1e-5)
        assert (beside[:, end:].softmax(-1)[..., 0] == 1).all()


def test_a_norm_over_time_without_padding_is_torchs() -> None:
    mine, torchs = OverTime(6).double(), nn.GroupNorm(6, 6).double()
    with torch.no_grad():
        mine.weight.uniform_(0.5, 2.0)
        mine.bias.normal_()
    torchs.load_state_dict(mine.state_dict())
    x_BCU = torch.randn(3, 6, 17, dtype=torch.float64) * 4 + 2
    found = mine(x_BCU, torch.ones(3, 17, 1, dtype=torch.float64))
    torch.testing.assert_close(found, torchs(x_BCU))


def test_positions_are_torchs_convolution_with_weight_norm() -> None:
    positions = Positions(8, 5, 2).double()
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 8, 5, padding=2, groups=2).double(), dim=2)
    with torch.no_grad():
        positions.gain.uniform_(0.5, 2.0)
        conv.parametrizations.weight.original0.copy_(positions.gain)
        conv.parametrizations.weight.original1.copy_(positions.direction)
        conv.bias.copy_(positions.bias)  # type: ignore[union-attr, arg-type]
    x_BUW = torch.randn(2, 11, 8, dtype=torch.float64)
    wanted = nn.functional.gelu(conv(x_BUW.transpose(1, 2))).transpose(1, 2)
    torch.testing.assert_close(positions(x_BUW), wanted)


def test_gradients_pass_no_padding() -> None:
    model = wav2vec2("group").train()
    x_BTM = padded(wave(100), 5).requires_grad_()
    model(x_BTM).sum().backward()
    assert x_BTM.grad is not None
    assert x_BTM.grad[:, :4].abs().sum() > 0
    assert not x_BTM.grad[:, 5:].any()
    assert all(each.grad is not None and torch.isfinite(each.grad).all() for each in model.parameters())


def test_initial_lengths_of_positions_are_those_of_their_directions() -> None:
    positions = wav2vec2(width=64, groups=4).positions
    lengths = torch.linalg.vector_norm(positions.direction, dim=(0, 1))
    torch.testing.assert_close(positions.gain, lengths, rtol=0.1, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_it_keeps_the_contract_of_a_model(norm: str) -> None:
    batch = {"x": wave(200, 8).numpy(), "y": np.arange(8) % OUTPUTS}
    wider = {"channels": [16, 16, 16], "width": 32}
    check_model(lambda: wav2vec2(norm, **wider), batch, "classify")


def test_frames_have_to_be_what_a_model_reads() -> None:
    assert resolve("wav2vec2-tiny", waves()).arguments["outputs"] == 10
    with pytest.raises(JobError, match=r"'wav2vec2' reads raw waves, and data\.features is log_mel\. Set .*: wave"):
        resolve("wav2vec2-tiny", recordings())
    with pytest.raises(JobError, match=r"'speech' reads frames of bands, and data\.features is wave\. Set .*: log_mel"):
        resolve("speech-tiny", waves())
