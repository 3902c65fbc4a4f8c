"""Distillation: a student that answers as its teacher has no soft loss; gradients are those of the formula."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
from small_models import ARGUMENTS, TASKS, batch_of, drawn, small_plan

from thrifty.compress.moves.soft import SOFT_SUMS, distilling
from thrifty.errors import JobError
from thrifty.models import build
from thrifty.models.inputs import to_tensors
from thrifty.models.losses import LOSS_SUMS
from thrifty.models.speech import PADDING
from thrifty.spec import Task
from thrifty.spec.kinds import Task as Tasks


class Fixed(nn.Module):
    """Logits whatever is asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        return self.logits * torch.ones(())


def value(loss: Tensor) -> float:
    return float(loss.detach())


CASES: dict[Task, tuple[tuple[int, ...], Tensor]] = {
    "classify": ((4, 3), torch.tensor([0, 2, 1, 1])),
    "language": ((2, 5, 7), torch.tensor([[1, 2, 3, -100, 4], [0, 6, -100, -100, -100]])),
    "mask": ((2, 5, 7), torch.tensor([[1, -100, 3, -100, 4], [0, 6, -100, -100, -100]])),
    "tag": ((4, 3), torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 0], [torch.nan] * 3])),
    "regress": ((4, 1), torch.tensor([0.5, -1, torch.nan, 2])),
    "transcribe": ((3, 8, 5), torch.tensor([[1, 2, 3], [4, -100, -100], [2, 2, -100]])),
}


def test_every_task_has_a_way() -> None:
    assert set(CASES) == set(SOFT_SUMS) == set(Tasks.__args__)


# the first use of its operator takes seconds
@pytest.mark.parametrize(
    "task", [*sorted(set(CASES) - {"transcribe"}), pytest.param("transcribe", marks=pytest.mark.slow)]
)
def test_what_answers_as_the_teacher_has_no_soft_loss(task: Task) -> None:
    shape, y = CASES[task]
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    teacher, student = Fixed(logits.clone()).eval(), Fixed(logits.clone())
    batch = {"x": torch.zeros(shape[0]), "y": y}
    soft = distilling(teacher, task, share=1.0, temperature=3.0)(student, batch)
    assert float(soft.detach()) == pytest.approx(0, abs=1e-5)
    soft.backward()
    assert student.logits.grad is not None and float(student.logits.grad.abs().max()) < 1e-5
    assert teacher.logits.grad is None
    assert teacher.asked == student.asked == 1, "one pass of each"
    hard = distilling(teacher, task, share=0.0)(student, batch)
    assert float(hard.detach()) == pytest.approx(float(LOSS_SUMS[task](student, batch).detach()), rel=1e-6)
    other = Fixed(logits + torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    assert value(distilling(teacher, task, share=1.0)(other, batch)) > 0.1


@pytest.mark.parametrize("task", ["classify", "language", "tag"])
def test_answers_that_are_none_teach_nothing(task: Task) -> None:
    shape, y = CASES[task]
    none = torch.full_like(y, -100) if not y.is_floating_point() else torch.full_like(y, torch.nan)
    if task == "classify":
        y = y.clone()
    draw = torch.Generator().manual_seed(0)
    teacher, student = (Fixed(torch.randn(shape, generator=draw)) for _ in range(2))
    assert value(distilling(teacher.eval(), task)(student, {"x": torch.zeros(1), "y": none})) == 0


def test_the_loss_is_that_of_the_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    t, s = torch.randn(4, 3, generator=draw), torch.randn(4, 3, generator=draw)
    y = torch.tensor([0, 2, 1, 1])
    loss = distilling(Fixed(t).eval(), "classify", temperature=2.0, share=0.25)(Fixed(s), {"x": t, "y": y})
    p, q = (t / 2).softmax(1), (s / 2).softmax(1)
    formula = 0.25 * 4 * (p * (p.log() - q.log())).sum() + 0.75 * F.cross_entropy(s, y, reduction="sum")
    assert value(loss) == pytest.approx(float(formula), rel=1e-5)


def test_members_each_learn_from_the_teacher() -> None:
    draw = torch.Generator().manual_seed(0)
    t, s = torch.randn(4, 3, generator=draw), torch.randn(4, 2, 3, generator=draw)
    batch = {"x": t, "y": torch.tensor([0, 2, 1, 1])}
    both = value(distilling(Fixed(t).eval(), "classify")(Fixed(s), batch))
    each = [value(distilling(Fixed(t).eval(), "classify")(Fixed(s[:, k]), batch)) for k in (0, 1)]
    assert both == pytest.approx(sum(each) / 2, rel=1e-5)


def test_other_frames_cannot_be_learned_from() -> None:
    _, y = CASES["transcribe"]
    with pytest.raises(JobError, match=r"frames of shape \(3, 8, 5\) cannot be learned from \(3, 4, 5\)"):
        distilling(Fixed(torch.zeros(3, 4, 5)).eval(), "transcribe")(Fixed(torch.zeros(3, 8, 5)), {"x": y, "y": y})


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(ARGUMENTS))
def test_a_student_of_every_family_learns_to_answer_as_its_teacher(family: str) -> None:
    plan = small_plan(family)
    task: Task = "language" if TASKS[family] == "language" else "classify"
    teacher, student = drawn(plan), build(plan, seed=3).train()
    batch = to_tensors(batch_of(family))
    loss = distilling(teacher, task, share=1.0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        losses.append(float((each := loss(student, batch)).detach()))
        optimizer.zero_grad()
        each.backward()
        optimizer.step()
    assert min(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.slow
def test_a_transcript_ends_where_it_ends_for_both() -> None:
    plan = small_plan("speech")
    plan = plan.model_copy(update={"arguments": {**plan.arguments, "transcribes": True}})
    teacher, student = drawn(plan), drawn(plan, seed=9)
    x = torch.from_numpy(np.array(batch_of("speech")["x"]))
    batch = {"x": x, "y": torch.tensor([[1, 2]] * len(x))}
    longer = {**batch, "x": torch.cat([x, torch.full((len(x), 8, 12), PADDING)], 1)}
    loss = distilling(teacher, "transcribe")
    assert value(loss(student, longer)) == pytest.approx(value(loss(student, batch)), rel=1e-3)
