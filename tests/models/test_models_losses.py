"""Losses are sums over what counts, in float32; batches become the tensors that models take."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thrifty.models.inputs import to_tensors
from thrifty.models.losses import LOSS_SUMS, LOSSES


class Says(nn.Module):
    """Answers with the logits it was made with."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


def test_classify_sums_over_samples() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    loss_sum, weight = LOSSES["classify"](Says(logits), {"x": logits, "y": torch.tensor([0, 1])})
    assert loss_sum.item() == pytest.approx(math.log(2) + math.log(4 / 3))
    assert int(weight) == 2


def test_language_leaves_out_what_is_ignored() -> None:
    logits = torch.zeros(2, 3, 5)
    y_BT = torch.tensor([[0, 1, -100], [-100, -100, 4]])
    loss_sum, weight = LOSSES["language"](Says(logits), {"x": logits, "y": y_BT})
    assert int(weight) == 3
    assert loss_sum.item() == pytest.approx(3 * math.log(5))


# those whose answers are classes
TELLING = ("classify", "language")


@pytest.mark.parametrize("task", TELLING)
def test_bf16_logits_are_summed_in_float32(task: str) -> None:
    logits = torch.zeros(3000, 2, dtype=torch.bfloat16)
    loss_sum, _ = LOSSES[task](Says(logits), {"x": logits, "y": torch.zeros(3000, dtype=torch.int64)})
    assert loss_sum.dtype == torch.float32
    # bfloat16 would stop adding 0.69 at 256
    assert loss_sum.item() == pytest.approx(3000 * math.log(2), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("task", TELLING)
def test_a_sum_alone_is_that_of_the_loss(task: str, dtype: torch.dtype) -> None:
    logits = torch.linspace(-2, 3, 24, dtype=dtype).view(2, 3, 4)
    batch = {"x": logits, "y": torch.tensor([[0, 3, -100], [-100, 1, 2]])}
    alone, (loss_sum, _) = LOSS_SUMS[task](Says(logits), batch), LOSSES[task](Says(logits), batch)
    assert torch.equal(alone, loss_sum) and alone.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_sum_of_squares_is_in_float32(dtype: torch.dtype) -> None:
    answers = torch.linspace(-2, 3, 600, dtype=dtype)[:, None]
    batch = {"x": answers, "y": torch.full((600,), 1.25)}
    alone, (loss_sum, count) = LOSS_SUMS["regress"](Says(answers), batch), LOSSES["regress"](Says(answers), batch)
    assert torch.equal(alone, loss_sum) and alone.dtype == torch.promote_types(dtype, torch.float32)
    assert loss_sum.item() == pytest.approx(((answers.double() - 1.25) ** 2).sum().item(), rel=1e-5)
    assert int(count) == 600


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_several_labels_are_summed_over_labels_and_counted_by_samples(dtype: torch.dtype) -> None:
    logits, y = torch.linspace(-2, 3, 12, dtype=dtype).view(4, 3), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]])
    batch = {"x": logits, "y": torch.cat([y, torch.full((1, 3), math.nan)])}
    alone, (loss_sum, count) = LOSS_SUMS["tag"](Says(logits), batch), LOSSES["tag"](Says(logits), batch)
    assert torch.equal(alone, loss_sum) and alone.dtype == torch.promote_types(dtype, torch.float32)
    right = logits[:3].double().sigmoid()
    wanted = -torch.where(y > 0, right.log(), (1 - right).log()).sum().item()
    assert loss_sum.item() == pytest.approx(wanted, rel=1e-5)
    assert int(count) == 3


def test_samples_without_answers_have_no_gradient() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    LOSS_SUMS["tag"](Says(logits), {"x": logits, "y": torch.tensor([[math.nan] * 3, [1.0, 0.0, 1.0]])}).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0, 0.0], [-0.5, 0.5, -0.5]]


def test_batches_become_tensors(tmp_path: pytest.TempPathFactory) -> None:
    batch = {"x": np.ones((2, 3, 4, 4), np.float64), "y": np.array([1, 65_000], np.uint16)}
    tensors = to_tensors(batch, "cpu", "channels_last")
    assert tensors["x"].dtype == torch.float32 and tensors["x"].is_contiguous(memory_format=torch.channels_last)
    assert tensors["y"].dtype == torch.int64 and tensors["y"].tolist() == [1, 65_000]


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8])
def test_a_memory_map_is_not_written_to(kind: type, tmp_path: object) -> None:
    path = f"{tmp_path}/x.npy"
    np.save(path, np.ones((2, 4), kind))
    tensor = to_tensors({"x": np.load(path, mmap_mode="r")})["x"]
    tensor.zero_()
    assert np.load(path).all()


def test_members_learn_shares_of_classes_each_by_itself() -> None:
    logits_BKV = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    shares_BV = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25]])
    batch = {"x": logits_BKV, "y": torch.tensor([0, 1]), "answers": shares_BV}
    loss = LOSS_SUMS["classify"](Says(logits_BKV), batch)
    expected = -(logits_BKV.log_softmax(-1) * shares_BV[:, None]).sum() / 3
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
