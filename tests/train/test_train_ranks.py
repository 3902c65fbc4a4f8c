"""Several ranks, real processes over gloo: they learn what one device learns, and agree on all they decide."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))
from data_folders import reviews, write_tables
from norms_run import NORMS, SHARES
from ranks_run import in_double

from thrifty.data import Store, prepare
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.spec import LanguageData, Plan, Spent, TextData
from thrifty.spec.events import Event, StepDone
from thrifty.train import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PlanFactory = Callable[..., Plan]

RELATIVE = 1e-5
STEPS = 7
# optimizers that step by parts of weights; the others are refused where weights are shared out
IN_PARTS = (
    "sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "nadam", "lion", "lamb", "schedule_free",
)  # fmt: skip


class KilledError(Exception):
    """Stands for the end of the process."""


def launch(cases: list[dict[str, Any]], folder: Path, ranks: int = 2) -> None:
    """Train plans on so many ranks, one after the other: starting ranks takes longest."""
    for case in cases:
        if "folder" in case:
            Path(case["folder"]).mkdir(parents=True, exist_ok=True)
    path = folder / f"cases-{ranks}.json"
    path.write_text(json.dumps(cases))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    script = str(Path(__file__).with_name("ranks_run.py"))
    done = subprocess.run(
        [*command, "--nproc-per-node", str(ranks), script, str(path)],
        capture_output=True, text=True, timeout=800, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def said(folder: Path, ranks: int = 2) -> dict[str, Any]:
    """What the first rank says, once all ranks are seen to have decided the same."""
    all_said = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    for other in all_said[1:]:
        for name in ("losses", "norms", "trained", "buffers"):
            assert other.get(name) == all_said[0].get(name), name
    return all_said[0]


def case(plan: Plan, store: Store, folder: Path, **more: Any) -> dict[str, Any]:
    return {"plan": plan.model_dump(mode="json"), "store": str(store.folder), "folder": str(folder), **more}


def alone(
    plan: Plan,
    store: Store,
    folder: Path,
    hear: Callable[[Event], None] = lambda event: None,
    *,
    double: bool = False,
) -> dict[str, Any]:
    """Train a plan on one device, here; the same as `said` of it."""
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        hear(event)

    model = build(plan.model)
    initialise(model, plan.init, plan.seed)
    model = in_double(model) if double else model
    trained = train(plan, model, store, folder, emit=emit, spent=Spent)
    steps = [event for event in events if isinstance(event, StepDone)]
    return {
        "steps": [each.step for each in steps],
        "losses": [each.loss for each in steps],
        "norms": [each.gradient_norm for each in steps],
        "trained": vars(trained),
    }


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The best weights of a run, by name."""
    (path,) = folder.glob("best-*.safetensors")
    return load_file(path)


def state(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run."""
    path = max(folder.glob("step-*.pt"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def check_alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], relative: float = RELATIVE) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.shape == other[name].shape
        assert torch.allclose(value, other[name], rtol=relative, atol=relative), name


@pytest.fixture(scope="module")
def language(sources: Path, own_cache: Path) -> Store:
    data = LanguageData(kind="language", path=sources / "json", files="**/*.py", vocabulary=300, length=16)
    return prepare(data, seed=0, cache=own_cache, emit=lambda event: None)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory, own_cache: Path) -> Store:
    parts = {"train.tsv": reviews(70), "dev.tsv": reviews(20, 1), "test.tsv": reviews(20, 2)}
    path = write_tables(tmp_path_factory.mktemp("data") / "reviews", parts)
    return prepare(TextData(kind="text", path=path, vocabulary=128), seed=0, cache=own_cache, emit=lambda event: None)


@pytest.fixture(scope="module")
def plans(make_plan: PlanFactory, store: Store, language: Store, texts: Store) -> dict[str, tuple[Plan, Store]]:
    """Plans by name: uneven last batches, accumulation, a clipped gradient, weights that are shared by two layers."""
    uneven: dict[str, Any] = {"size": 50, "micro": 9, "steps": STEPS, "evaluate_every": 3}
    gpt = make_plan(
        size=13,
        micro=3,
        steps=STEPS,
        evaluate_every=3,
        clip=0.5,
        metric="loss",
        higher_is_better=False,
        target=-math.inf,
    )
    gpt = gpt.model_copy(update={"task": "language", "model": resolve("gpt-nano", language.dataset)})
    bert = make_plan(size=16, micro=3, steps=STEPS, evaluate_every=3).model_copy(
        update={"model": resolve("bert-tiny", texts.dataset)}
    )
    # the last step of an epoch has one sample, so that one of two ranks has none
    normed: dict[str, Any] = {"size": 57, "micro": 10, "steps": STEPS, "evaluate_every": 3}
    assert store.dataset.counts["train"] % normed["size"] == 1
    # AdamW would make of what rounding leaves of a gradient near zero a whole step
    resnet = make_plan("resnet8", **normed, optimizer="momentum", learning_rate=0.003)
    again = resnet.model_copy(update={"checkpointing": "full", "model": resolve("resnet14", store.dataset)})
    by_length = bert.batch.model_copy(update={"batching": "by_length"})
    return {
        "texts": (bert, texts),
        "rows used": (bert.model_copy(update={"rows": "used", "batch": by_length}), texts),
        "gpt": (gpt, language),
        "gpt again": (gpt.model_copy(update={"checkpointing": "full"}), language),
        "resnet": (resnet, store),
        "resnet in double": (make_plan("resnet8", **normed), store),
        "resnet again": (again, store),
        **{name: (make_plan(optimizer=name, **uneven), store) for name in IN_PARTS},
        "muon": (make_plan(optimizer="muon", **uneven), store),
        "adafactor": (make_plan(optimizer="adafactor", **uneven), store),
    }


WAYS = [("gpt", 0), ("gpt", 3), ("gpt again", 3), ("muon", 0), ("adafactor", 0), ("adamw", 0)]
WAYS += [("texts", 3), ("rows used", 0)]
WAYS += [(name, 3) for name in IN_PARTS]
WAYS += [("resnet", 0), ("resnet", 3), ("resnet again", 0), ("resnet in double", 0)]


@pytest.fixture(scope="module")
def two_ranks(plans: dict[str, tuple[Plan, Store]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each way on two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    cases = []
    for name, zero in WAYS:
        plan, store = plans[name]
        plan = plan.model_copy(update={"devices": 2, "zero": zero})
        cases.append(case(plan, store, folder / f"{name}-{zero}", double=name.endswith("double")))
    # one device, then copies on two, then shares on two, which first of all validate
    plan, store = plans["gpt"]
    begin_alone(plan, store, folder / "over")
    copies, shares = (plan.model_copy(update={"devices": 2, "zero": zero}) for zero in (0, 3))
    cases.append(case(copies, store, folder / "over", signal=3, says="copies"))
    cases.append(case(shares, store, folder / "over", signal=5, says="shares"))
    # as many samples at once on one device as then on two
    plan, store = plans["resnet"]
    begin_alone(together(plan), store, folder / "normed")
    cases.append(case(plan.model_copy(update={"devices": 2}), store, folder / "normed"))
    launch([*cases, {"norms": str(folder / "norms.json")}], folder)
    return folder


def together(plan: Plan) -> Plan:
    """The plan of one device that computes as many samples at once as two ranks."""
    return plan.model_copy(update={"batch": plan.batch.model_copy(update={"micro": 2 * plan.batch.micro})})


def begin_alone(plan: Plan, store: Store, folder: Path) -> None:
    """Train two steps of a plan on one device; what became of it is written to ``alone.json``."""
    losses: dict[int, float] = {}

    def die(event: Event) -> None:
        if isinstance(event, StepDone):
            losses[event.step] = event.loss
            if event.step == 2:
                raise KilledError

    with pytest.raises(KilledError):
        alone(plan, store, folder, die)
    (folder / "alone.json").write_text(json.dumps(losses))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_over_ranks_is_that_of_one_device(name: str, share: str, two_ranks: Path) -> None:
    apart = json.loads((two_ranks / "norms.json").read_text())[name][share]
    # results, gradients of inputs, weights and biases, running statistics, on each rank
    assert apart.keys() >= {"result", "x", "buffers"}
    assert max(apart.values()) < (0.05 if "bf16" in name else 1e-12), apart


@pytest.mark.parametrize(("name", "zero"), WAYS)
def test_ranks_learn_what_one_device_learns(
    name: str, zero: int, plans: dict[str, tuple[Plan, Store]], two_ranks: Path, tmp_path: Path
) -> None:
    double = name.endswith("double")
    close = 1e-10 if double else RELATIVE
    plan, store = plans[name]
    plan = together(plan) if name.startswith("resnet") else plan
    found, expected = said(two_ranks / f"{name}-{zero}"), alone(plan, store, tmp_path, double=double)
    assert found["losses"] == pytest.approx(expected["losses"], rel=close)
    assert found["norms"] == pytest.approx(expected["norms"], rel=10 * close)
    assert found["norms over ranks"] == 0
    trained = expected["trained"]
    assert found["trained"]["steps"] == trained["steps"]
    assert found["trained"]["metrics"] == pytest.approx(trained["metrics"], rel=10 * close)
    check_alike(weights(two_ranks / f"{name}-{zero}"), weights(tmp_path), 10 * close)
    # a checkpoint is the same whatever wrote it
    ours, theirs = state(two_ranks / f"{name}-{zero}"), state(tmp_path)
    assert {key: value.shape for key, value in ours["model"].items()} == {
        key: value.shape for key, value in theirs["model"].items()
    }
    assert ours["optimizer"]["state"].keys() == theirs["optimizer"]["state"].keys()


def test_a_run_goes_on_over_other_numbers_of_devices(
    plans: dict[str, tuple[Plan, Store]], two_ranks: Path, tmp_path: Path
) -> None:
    plan, store = plans["gpt"]
    whole, folder = alone(plan, store, tmp_path), two_ranks / "over"
    losses = {int(step): loss for step, loss in json.loads((folder / "alone.json").read_text()).items()}
    for name, step in (("copies", 3), ("shares", 5)):
        said_then = said(folder / name)
        assert "error" in said_then, (name, said_then)
        assert said_then["error"].startswith(f"stopped by SIGTERM: step {step} of {STEPS} is saved")
        losses |= dict(zip(said_then["steps"], said_then["losses"], strict=True))
    rest = alone(plan, store, folder)
    assert rest["steps"] == [6, 7]
    losses |= dict(zip(rest["steps"], rest["losses"], strict=True))
    assert [losses[step] for step in whole["steps"]] == pytest.approx(whole["losses"], rel=RELATIVE)
    check_alike(weights(folder), weights(tmp_path), 1e-4)


def test_batch_norm_goes_on_over_ranks_as_it_was(
    plans: dict[str, tuple[Plan, Store]], two_ranks: Path, tmp_path: Path
) -> None:
    plan, store = plans["resnet"]
    whole, found = alone(together(plan), store, tmp_path), said(two_ranks / "normed")
    # a step or two were saved before
    first = found["steps"][0]
    assert first in (2, 3)
    assert found["losses"] == pytest.approx(whole["losses"][first - 1 :], rel=RELATIVE)
    # of as many samples at once: there is nothing to warn of
    assert "Resumed" in found["events"] and "Warned" not in found["events"]
    check_alike(weights(two_ranks / "normed"), weights(tmp_path), 1e-4)


def test_a_spent_budget_ends_all_ranks_at_one_step(plans: dict[str, tuple[Plan, Store]], tmp_path: Path) -> None:
    plan, store = plans["adamw"]
    plan = plan.model_copy(update={"devices": 3, "stop": plan.stop.model_copy(update={"seconds": 5.0})})
    # the first rank's budget counts: the others are told of none
    launch([case(plan, store, tmp_path / "run", spent=6.0)], tmp_path, ranks=3)
    ended = said(tmp_path / "run", ranks=3)
    assert ended["error"].startswith("nothing was trained: time budget")
    assert ended["steps"] == []
