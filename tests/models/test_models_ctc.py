"""The loss of transcripts against all paths added up, and both decoders against all transcripts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from thrifty.cost.ops import unpriceable
from thrifty.models.ctc import ctc_sum
from thrifty.models.decoding import beam, greedy
from thrifty.models.speech import ended


def logits(samples: int = 3, frames: int = 5, tokens: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, frames, tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spells(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(path) if token)


def every_transcript(log_UV: np.ndarray) -> dict[tuple[int, ...], float]:
    """The probability of each transcript, over every path there is."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_UV.shape[1]), repeat=len(log_UV)):
        weight = float(np.exp(sum(log_UV[frame, token] for frame, token in enumerate(path))))
        found[spells(path)] = found.get(spells(path), 0.0) + weight
    return found


@pytest.mark.parametrize("said", [(1,), (2, 1), (1, 1), (1, 2, 1)])
def test_the_loss_is_that_of_all_paths_that_spell_the_transcript(said: tuple[int, ...]) -> None:
    logits_BUV = logits(samples=1)
    wanted = every_transcript(logits_BUV[0].log_softmax(-1).numpy())[said]
    y_BL = torch.tensor([[*said, -100, -100]])
    assert ctc_sum(logits_BUV, y_BL).item() == pytest.approx(-np.log(wanted), rel=1e-9)


def test_its_gradient_is_torchs() -> None:
    mine, theirs = (logits(samples=2, frames=7).requires_grad_() for _ in range(2))
    ctc_sum(mine, torch.tensor([[1, 2, -100], [2, 2, 1]])).backward()
    log_UBV = theirs.log_softmax(-1).transpose(0, 1)
    F.ctc_loss(log_UBV, torch.tensor([[1, 2, 1], [2, 2, 1]]), (7, 7), (2, 3), reduction="sum").backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_micro_batches_add_up_to_their_batch_and_padding_adds_nothing() -> None:
    whole, y_BL = logits(samples=4, frames=6), torch.tensor([[1, -100], [2, 1], [-100, -100], [1, 1]])
    parts = sum(ctc_sum(whole[rows], y_BL[rows]) for rows in ([0, 1], [2], [3]))
    torch.testing.assert_close(ctc_sum(whole, y_BL), parts)
    wider = torch.cat([y_BL, torch.full((4, 3), -100)], 1)
    torch.testing.assert_close(ctc_sum(whole, wider), parts)
    # a recording that ended: the blank is certain in the frames that follow
    longer = torch.cat([whole, logits(samples=4, frames=3, seed=1)], 1)
    stopped = ended(longer, torch.arange(9).expand(4, 9) < 6)
    torch.testing.assert_close(ctc_sum(stopped, y_BL), parts)


def test_what_cannot_be_said_in_so_few_frames_has_neither_loss_nor_gradient() -> None:
    short = logits(samples=1, frames=2).requires_grad_()
    loss = ctc_sum(short, torch.tensor([[1, 1]]))
    loss.backward()
    assert loss.item() == 0
    assert short.grad is not None
    assert not short.grad.any()


def test_it_can_be_traced_without_values() -> None:
    with FakeTensorMode():
        made = torch.randn(2, 6, 4, requires_grad=True)
        ctc_sum(made, torch.ones(2, 3, dtype=torch.int64)).backward()
        assert made.grad is not None
        assert made.grad.shape == (2, 6, 4)


def test_a_step_can_be_priced() -> None:
    """A trace takes operators that are not torch's only where it knows their arithmetic."""
    for operator in (torch.ops.thrifty.ctc.default, torch.ops.thrifty.ctc_backward.default):
        assert unpriceable(operator) == ""


@pytest.mark.slow
def test_the_operators_keep_torchs_contract() -> None:
    log_UBV = logits(samples=2).log_softmax(-1).transpose(0, 1).contiguous().requires_grad_()
    y_BL, lengths_B = torch.tensor([[1, 2], [2, 1]]), torch.tensor([2, 1])
    torch.library.opcheck(torch.ops.thrifty.ctc.default, (log_UBV, y_BL, lengths_B))


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_likeliest_transcript(seed: int) -> None:
    logits_BUV = logits(samples=1, frames=4, tokens=3, seed=seed)
    every = every_transcript(logits_BUV[0].log_softmax(-1).numpy())
    assert tuple(beam(logits_BUV.numpy(), 100)[0]) == max(every, key=lambda said: every[said])


def test_a_beam_sums_paths_where_the_greedy_way_takes_one() -> None:
    # Hannun et al. 2014: blank is likelier in each frame, and yet "1" in the sum over its three paths
    frames = np.log(np.array([[[0.6, 0.4], [0.6, 0.4]]]))
    assert greedy(frames) == [[]]
    assert beam(frames) == [[1]]


def test_greedy_joins_runs_and_keeps_what_a_blank_parts() -> None:
    paths = np.array([[0, 1, 1, 0, 1, 2, 2, 0], [2, 2, 1, 1, 1, 2, 0, 0]])
    assert greedy(np.eye(3)[paths]) == [[1, 1, 2], [2, 1, 2]]
    assert beam(10 * np.eye(3)[paths]) == [[1, 1, 2], [2, 1, 2]]
