"""The loss of a student: the softened answers of its teacher beside the labels.

Hinton et al. 2015 (arXiv 1503.02531): both logits are softened by a temperature T, and the gradient of the soft part is
multiplied by T squared, so that its size does not depend on T. Regression learns the teacher's numbers; transcripts
its frames (Takashima et al. 2018), where both models have the same frames.

Shapes: B rows, V classes or words, K members or labels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thrifty.errors import JobError
from thrifty.models.inputs import input_of
from thrifty.models.losses import IGNORED, LOSS_SUMS, LossSum
from thrifty.spec import Task

TEMPERATURE = 2.0
# of the loss that is the teacher's
SOFT_SHARE = 0.7


def distilling(
    teacher: nn.Module, task: Task, *, temperature: float = TEMPERATURE, share: float = SOFT_SHARE
) -> LossSum:
    """Return a loss that a student learns by: the teacher's softened answers, and the labels, each by its share.

    The teacher answers each batch once, without gradients. It has to be in ``eval`` mode, on the student's device.

    Args:
        teacher: answers with logits of the student's shape.
        task: of both.
        temperature: that softens.
        share: of the teacher's part, in 0..1.
    """
    assert not teacher.training and temperature > 0 and 0 <= share <= 1
    soft_sum = SOFT_SUMS[task]

    def loss_sum(student: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            wanted = teacher(input_of(batch)).float()
        heard: list[Tensor] = []

        def answers(x: Tensor, **more: object) -> Tensor:
            heard.append(student(x, **more))
            return heard[0]

        # one pass of the student serves both parts
        hard = LOSS_SUMS[task](answers, batch)  # type: ignore[arg-type]
        soft = soft_sum(heard[0].float(), wanted, batch, temperature)
        return share * soft + (1 - share) * hard

    return loss_sum


def _classes(student: Tensor, teacher: Tensor, batch: dict[str, Tensor], temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened classes; of members [B, K, V] each by itself, their mean."""
    if student.dim() == teacher.dim() + 1:
        members = student.shape[1]
        wide = teacher.unsqueeze(1).expand_as(student)
        return _divergence(student, wide, temperature).sum() / members
    rows = _divergence(student, teacher, temperature)
    y = batch["y"]
    if rows.shape == y.shape:
        rows = rows * (y != IGNORED)
    return rows.sum()


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_student = (student / temperature).log_softmax(-1)
    log_teacher = (teacher / temperature).log_softmax(-1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(-1)


def _labels(student: Tensor, teacher: Tensor, batch: dict[str, Tensor], temperature: float) -> Tensor:
    """Binary cross entropy of softened labels, less what the teacher's own answers have of it."""
    wanted = (teacher / temperature).sigmoid()
    own = F.binary_cross_entropy_with_logits(teacher / temperature, wanted, reduction="none")
    rows = F.binary_cross_entropy_with_logits(student / temperature, wanted, reduction="none") - own
    return temperature**2 * (rows.sum(1) * ~batch["y"].isnan().any(1)).sum()


def _numbers(student: Tensor, teacher: Tensor, batch: dict[str, Tensor], temperature: float) -> Tensor:
    error = student.flatten(1) - teacher.flatten(1).mean(1, keepdim=True)
    return (error.square().mean(1) * ~batch["y"].isnan()).sum()


def _frames(student: Tensor, teacher: Tensor, batch: dict[str, Tensor], temperature: float) -> Tensor:
    if student.shape != teacher.shape:
        raise JobError(f"frames of shape {tuple(student.shape)} cannot be learned from {tuple(teacher.shape)}")
    return _divergence(student, teacher, temperature).sum()


SOFT_SUMS = {
    "classify": _classes,
    "language": _classes,
    "mask": _classes,
    "tag": _labels,
    "regress": _numbers,
    "transcribe": _frames,
}
