"""The loop over texts: exact after a death in any way of batching, and the same weights from other micro-batches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))
from data_folders import reviews, write_tables
from test_train_loop import Killed, go, same

from thrifty.data import Store, prepare, sweep
from thrifty.evaluate import evaluate
from thrifty.models import resolve
from thrifty.spec import Batching, Plan, TextData
from thrifty.spec.events import Resumed, StepDone
from thrifty.train.step import take_step

# each trains a real model for some steps
pytestmark = pytest.mark.slow

SIZE = 16
TextPlan = Callable[..., Plan]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Store:
    parts = {"train.tsv": reviews(70), "dev.tsv": reviews(20, 1), "test.tsv": reviews(20, 2)}
    path = write_tables(tmp_path_factory.mktemp("data") / "reviews", parts)
    data = TextData(kind="text", path=path, vocabulary=128)
    return prepare(data, seed=0, cache=own_cache, emit=lambda event: None)


@pytest.fixture
def text_plan(make_plan: Callable[..., Plan], texts: Store) -> TextPlan:
    def make(batching: Batching = "by_length", micro: int = SIZE, **changes: object) -> Plan:
        plan = make_plan(size=SIZE, micro=micro, evaluate_every=4, **changes)
        batch = plan.batch.model_copy(update={"batching": batching, "evaluation": 8})
        model = resolve("bert-tiny", texts.dataset)
        return plan.model_copy(update={"batch": batch, "model": model})

    return make


@pytest.mark.parametrize("batching", ["padded", "by_length", "packed"])
def test_a_run_that_died_ends_with_the_same_weights(
    batching: Batching, text_plan: TextPlan, texts: Store, tmp_path: Path
) -> None:
    plan = text_plan(batching, micro=6, steps=8)
    whole, trained, _ = go(plan, texts, tmp_path / "whole")
    with pytest.raises(Killed):
        go(plan, texts, tmp_path / "died", die_at=3)
    resumed, after, events = go(plan, texts, tmp_path / "died")
    assert isinstance(events[0], Resumed)
    assert same(whole, resumed)
    assert after == trained


@pytest.mark.parametrize("micro", [1, 5])
def test_the_micro_batch_changes_nothing_that_is_learned(
    micro: int, text_plan: TextPlan, texts: Store, tmp_path: Path
) -> None:
    def weights(micro: int) -> torch.Tensor:
        plan = text_plan(micro=micro, steps=4, optimizer="momentum", learning_rate=0.05)
        model, *_ = go(plan, texts, tmp_path / str(micro))
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.allclose(weights(SIZE), weights(micro), rtol=1e-4, atol=1e-6)


def test_it_learns_and_results_do_not_depend_on_who_is_evaluated_together(
    text_plan: TextPlan, texts: Store, tmp_path: Path
) -> None:
    model, trained, _ = go(text_plan(steps=40), texts, tmp_path)
    assert trained.metrics["accuracy"] > 0.8
    found = [evaluate(model, sweep(texts, "test", micro), "classify") for micro in (1, 7, 20)]
    assert len({each.confusion for each in found}) == 1
    losses = [each.metrics["loss"] for each in found]
    assert max(losses) - min(losses) < 1e-5


def test_rows_used_are_trained_as_all_rows_are(text_plan: TextPlan, texts: Store, tmp_path: Path) -> None:
    plan = text_plan(steps=12, optimizer="adamw", learning_rate=1e-3, clip=1.0)
    whole, all_of_it, _ = go(plan, texts, tmp_path / "all")
    thin, used, _ = go(plan.model_copy(update={"rows": "used"}), texts, tmp_path / "used")
    assert used.metrics["loss"] == pytest.approx(all_of_it.metrics["loss"], rel=1e-5)
    for (name, value), other in zip(whole.state_dict().items(), thin.state_dict().values(), strict=True):
        assert torch.allclose(value, other, rtol=1e-4, atol=1e-6), name
    assert all(parameter.requires_grad for parameter in thin.parameters())


def test_rows_used_resume_with_the_same_bits(text_plan: TextPlan, texts: Store, tmp_path: Path) -> None:
    plan = text_plan(steps=11, optimizer="adamw", learning_rate=1e-3).model_copy(update={"rows": "used"})
    whole, trained, _ = go(plan, texts, tmp_path / "whole")
    with pytest.raises(Killed):
        go(plan, texts, tmp_path / "died", die_at=6)
    resumed, after, _ = go(plan, texts, tmp_path / "died")
    assert same(whole, resumed)
    assert after == trained


def test_packed_texts_learn_what_padded_ones_do(text_plan: TextPlan, texts: Store, tmp_path: Path) -> None:
    """The same texts make a step, in the same order; computed at once or in parts."""
    padded, _, told = go(text_plan("padded", steps=8), texts, tmp_path / "padded")
    losses = [event.loss for event in told if isinstance(event, StepDone)]
    for micro, rows in ((SIZE, "all"), (5, "all"), (SIZE, "used")):
        plan = text_plan("packed", micro=micro, steps=8).model_copy(update={"rows": rows})
        packed, _, told = go(plan, texts, tmp_path / f"packed{micro}{rows}")
        assert [event.loss for event in told if isinstance(event, StepDone)] == pytest.approx(losses, rel=1e-4)
        for got, wanted in zip(packed.parameters(), padded.parameters(), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_several_labels_are_learned_alike_in_any_batching_and_micro_batch(
    text_plan: TextPlan, tmp_path: Path, own_cache: Path
) -> None:
    rows = [(text, f"{label}|odd" if at % 3 else "") for at, (text, label) in enumerate(reviews(70))]
    path = write_tables(tmp_path / "tags", {"all.tsv": [("text", "tags"), *rows]})
    data = TextData(kind="text", path=path, task="tag", label_separator="|", vocabulary=128)
    store = prepare(data, seed=0, cache=own_cache, emit=lambda event: None)
    model = resolve("bert-tiny", store.dataset)

    def losses_and_weights(batching: Batching, micro: int) -> tuple[list[float], torch.Tensor]:
        plan = text_plan(batching, micro=micro, steps=4, optimizer="momentum", learning_rate=0.02, metric="micro_f1")
        plan = plan.model_copy(update={"model": model, "task": "tag"})
        trained, _, told = go(plan, store, tmp_path / f"{batching}{micro}")
        weights = torch.cat([p.detach().flatten() for p in trained.parameters()])
        return [event.loss for event in told if isinstance(event, StepDone)], weights

    losses, weights = losses_and_weights("padded", SIZE)
    for batching, micro in (("padded", 5), ("packed", SIZE), ("packed", 5)):
        other, found = losses_and_weights(batching, micro)
        assert other == pytest.approx(losses, rel=1e-4)
        torch.testing.assert_close(found, weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("task", ["classify", "regress", "tag"])
def test_a_batch_without_answers_counts_for_nothing(task: str, text_plan: TextPlan) -> None:
    answers = {
        "classify": (np.array([0, 1]), np.array([-100])),
        "regress": (np.array([0.5, -1.0], np.float32), np.array([np.nan], np.float32)),
        "tag": (np.array([[0, 1], [1, 1]], np.float32), np.full((1, 2), np.nan, np.float32)),
    }
    batch, idle = ({"x": np.ones((len(y), 3), np.float32), "y": y} for y in answers[task])
    plan = text_plan(optimizer="sgd").model_copy(update={"task": task})

    def step(parts: list[dict[str, np.ndarray]]) -> tuple[float, torch.Tensor]:
        layer = torch.nn.Linear(3, 1 if task == "regress" else 2)
        torch.nn.init.ones_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        loss, _ = take_step(plan, layer, torch.optim.SGD(layer.parameters(), lr=0.1), parts, 0.1)
        return loss, layer.weight.detach()

    (loss, weight), (other, found) = step([batch]), step([batch, idle])
    assert other == pytest.approx(loss)
    assert torch.equal(found, weight)


def test_packed_texts_are_trained_under_a_budget_of_memory(text_plan: TextPlan, texts: Store, tmp_path: Path) -> None:
    plan = text_plan("packed", micro=8, steps=2)
    free, *_ = go(plan, texts, tmp_path / "free")
    held, *_ = go(plan.model_copy(update={"memory": 1e15}), texts, tmp_path / "held")
    assert same(free, held)
