"""Every move on every family: taken, or declined with its reason; what it makes is built, and read, from its plan."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
sys.path.insert(0, str(Path(__file__).parent.parent / "export"))
from made_bundles import LABELS, image_dataset, language_dataset, sound_dataset, table_dataset, text_dataset
from small_models import ARGUMENTS, batch_of, drawn, small_plan

from made_devices import device
from thrifty.compress.moves import MOVES, Candidate, Context
from thrifty.compress.moves.distil import LARGER, larger_student, student_of
from thrifty.compress.moves.low_rank import TOLERANCE, factor_move
from thrifty.compress.moves.weight import weigh
from thrifty.data import Store, prepare, sweep
from thrifty.errors import BudgetError, JobError
from thrifty.export.bundle import load_bundle, write_bundle
from thrifty.models import build, resolve
from thrifty.models.generate import generate
from thrifty.models.inputs import to_tensors
from thrifty.models.table import FAMILY_KINDS
from thrifty.spec import (
    BatchPlan,
    Cost,
    Dataset,
    ImageData,
    Interval,
    LanguageData,
    ModelPlan,
    OptimPlan,
    Plan,
    Spent,
    StopPlan,
    TableData,
)
from thrifty.spec.events import Event, StepDone

NOTHING = Interval(low=0, value=0, high=0, method="a test")


def run_plan(model: ModelPlan, steps: int = 40) -> Plan:
    return Plan(
        job="test", key="test", task="language" if model.family in {"gpt", "llama"} else "classify", model=model,
        init="default", seed=0, device="cpu", threads=1, memory_format="contiguous", precision="fp32",
        optim=OptimPlan(
            optimizer="adamw", schedule="cosine", learning_rate=3e-3, momentum=0.9, betas=(0.9, 0.999), eps=1e-8,
            weight_decay=0.01, warmup_steps=2, total_steps=steps, steps_per_epoch=5, decay=0.5, plateau_patience=1,
            clip=math.inf,
        ),
        stop=StopPlan(
            steps=steps, metric="accuracy", higher_is_better=True, target=math.inf, patience=0, seconds=math.inf,
            joules=math.inf, usd=math.inf,
        ),
        batch=BatchPlan(size=32, micro=32, accumulation=1, evaluation=64), evaluate_every=5, checkpoint_seconds=0.0,
        cost=Cost(seconds=NOTHING, peak_bytes=NOTHING, joules=NOTHING, usd=NOTHING, flops=NOTHING), why=(),
    )  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """In the place of a store, where only its description is looked at."""

    dataset: Dataset


DATA = {
    "image": image_dataset(),
    "text": text_dataset(32, 12),
    "language": language_dataset(32, 12),
    "audio": sound_dataset("classify"),
    "table": table_dataset(LABELS),
}


def looking(family: str) -> tuple[Context, Candidate]:
    plan = small_plan(family)
    store = Prepared(DATA[FAMILY_KINDS[plan.family][0]])
    context = Context(
        store=store, run=run_plan(plan), device=device(), calibration=(batch_of(family),), objective="latency", batch=2,
        seconds=60.0, seed=0, scratch=Path(),
    )  # type: ignore[arg-type]  # fmt: skip
    return context, Candidate(drawn(plan), plan)


NO_UNITS, NO_LAYERS, NO_NORMS = "no units that can go", "none can be left out", "no batch norm"
NO_LINEAR, ZEROS = "no linear layer is large enough", "zeros make nothing faster"
# by family: moves that are declined, with the reason; the others are taken; sparsity is declined of all
DECLINED: dict[str, dict[str, str]] = {
    "bert": {"fold_norms": NO_NORMS},
    "bert_original": {"fold_norms": NO_NORMS},
    "gpt": {"fold_norms": NO_NORMS},
    "llama": {"fold_norms": NO_NORMS},
    "vit": {"fold_norms": NO_NORMS},
    "speech": {"fold_norms": NO_NORMS},
    "wav2vec2": {"fold_norms": NO_NORMS},
    "resnet": {"low_rank": NO_LINEAR},
    "bottleneck": {"low_rank": NO_LINEAR},
    "fast_convnet": {"drop_layers_25": NO_LAYERS, "low_rank": NO_LINEAR},
    "mlp": {"drop_layers_25": NO_LAYERS, "fold_norms": NO_NORMS},
    "tabular": {"drop_layers_25": NO_LAYERS, "fold_norms": NO_NORMS, "low_rank": NO_LINEAR},
    "ngrams": {
        "prune_25": NO_UNITS, "prune_50": NO_UNITS, "drop_layers_25": NO_LAYERS, "fold_norms": NO_NORMS,
        "low_rank": "may read their layers' weights themselves",
    },
}  # fmt: skip
OURS = ("fold_norms", "prune_25", "prune_50", "drop_layers_25", "low_rank", "sparse_half", "sparse_2_4")


@pytest.mark.parametrize("family", sorted(ARGUMENTS))
def test_a_move_is_taken_or_says_why_not(family: str) -> None:
    context, candidate = looking(family)
    for name in OURS:
        reason = MOVES[name].applies(context, candidate)
        expected = DECLINED[family].get(name, ZEROS if name.startswith("sparse") else None)
        assert (reason is None) == (expected is None), (name, reason)
        assert expected is None or (reason is not None and expected in reason), (name, reason)
        if reason is None:
            assert 0 <= MOVES[name].price(context, candidate) <= 60
            assert MOVES[name].hope(context, candidate) >= 1


STUDENTS = {
    "bert-small": "bert-mini",
    "gpt-mini": "gpt-nano",
    "llama-mini": "llama-nano",
    "vit-mini": "vit-nano",
    "resnet20": "resnet8",
    "speech-mini": "speech-tiny",
    "table-mlp": "table-mlp-small",
    "mlp-large": "mlp-small",
    "mlp-small": None,
    "bert-tiny": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("named", STUDENTS)
def test_a_student_is_the_largest_smaller_model_of_the_table(named: str) -> None:
    family = next(each for each in ARGUMENTS if named.startswith(each[:3]) or (each, named[:5]) == ("tabular", "table"))
    context, _ = looking(family)
    plan = resolve(named, context.data)
    rows = batch_of(family)
    if family == "speech":
        context = replace(context, calibration=({**rows, "x": rows["x"]},))
    if family == "tabular":
        context = replace(context, calibration=({"x": rows["x"][:, [0] * context.data.shape[0]], "y": rows["y"]},))
    found = student_of(context, build(plan).eval(), plan)
    assert (found.name if found else None) == STUDENTS[named]
    declined = MOVES["distil"].applies(context, Candidate(build(plan).eval(), plan))
    assert (declined is None) == (found is not None)


@pytest.fixture(scope="module")
def store(digits: Path, own_cache: Path) -> Store:
    data = ImageData(kind="image", path=digits, size=16, color="gray")
    return prepare(data, seed=0, cache=own_cache, emit=lambda event: None)


@pytest.fixture
def real(store: Store, tmp_path: Path) -> Context:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Context(
        store=store, run=run_plan(resolve("vit-nano", store.dataset)), device=device(),
        calibration=tuple(sweep(store, "train", 32))[:2], objective="latency", batch=4, seconds=60.0, seed=3,
        scratch=scratch,
    )  # fmt: skip


def trained(named: str, context: Context) -> Candidate:
    plan = resolve(named, context.data)
    if named == "vit-nano":
        plan = plan.model_copy(update={"arguments": {**plan.arguments, "layers": 4, "width": 32, "heads": 4}})
    model = drawn(plan)
    return Candidate(model.requires_grad_(False), plan)


def answers(model: nn.Module, context: Context) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(to_tensors(context.calibration[0])["x"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "named, name",
    [("vit-nano", "prune_25"), ("vit-nano", "drop_layers_25"), ("vit-nano", "low_rank"), ("resnet8", "prune_50"),
     ("resnet8", "fold_norms"), ("mlp-large", "distil"), ("resnet8", "sparse_half")],
)  # fmt: skip
def test_what_a_move_makes_is_a_bundle_like_any_other(named: str, name: str, real: Context, tmp_path: Path) -> None:
    events: list[Event] = []
    context = replace(real, emit=events.append)
    before = trained(named, context)
    given, weights = answers(before.model, context), {n: t.clone() for n, t in before.model.state_dict().items()}
    made = MOVES[name].apply(context, before)
    assert made.taken == (name,) and len(made.says) == 1
    assert all(word in made.says[0] for word in ("parameters", "ms", "it took"))
    assert not made.model.training and not any(each.requires_grad for each in made.model.parameters())
    # the model that it was given is as it was
    assert torch.equal(answers(before.model, context), given)
    assert all(torch.equal(tensor, weights[n]) for n, tensor in before.model.state_dict().items())
    assert list(context.scratch.iterdir()) == []
    was, now = weigh(before.model, context.calibration[0]), weigh(made.model, context.calibration[0])
    if name.startswith("sparse"):
        assert (now.bytes, now.flops) == (was.bytes, was.flops)
    elif name == "fold_norms":
        assert now.parameters < was.parameters and now.flops == was.flops
        torch.testing.assert_close(answers(made.model, context), given, rtol=1e-5, atol=1e-5)
    else:
        assert now.parameters < was.parameters and now.flops < was.flops and now.bytes < was.bytes
        assert any(isinstance(event, StepDone) for event in events)
    write_bundle(
        tmp_path / "b", name="small", version=1, task="classify", model=made.model, plan=made.plan, data=context.data,
        tokenizer=None, metrics={}, isa=(), bill=Spent(),
    )  # fmt: skip
    read = load_bundle(tmp_path / "b")
    assert read.info.model == made.plan
    torch.testing.assert_close(answers(read.model, context), answers(made.model, context), rtol=1e-5, atol=1e-6)


@pytest.fixture
def prices(tmp_path: Path, own_cache: Path) -> Store:
    draw = np.random.default_rng(0)
    rooms, near = draw.integers(1, 9, 400), draw.choice(["bay", "hills", "inland"], 400)
    price = 1000 * rooms + 3000 * (near == "bay") + draw.normal(0, 50, 400)
    rows = [f"{a},{b},{c:.1f}" for a, b, c in zip(rooms, near, price, strict=True)]
    (tmp_path / "houses.csv").write_text("rooms,near,price\n" + "\n".join(rows) + "\n")
    asked = TableData(kind="table", path=tmp_path / "houses.csv", target="price")
    return prepare(asked, seed=0, cache=own_cache, emit=lambda event: None)


@pytest.mark.slow
def test_numbers_of_tables_are_learned_again_too(real: Context, prices: Store) -> None:
    plan = resolve("table-mlp-small", prices.dataset)
    run = run_plan(plan).model_copy(update={"task": "regress"})
    stop = run.stop.model_copy(update={"metric": "rmse", "higher_is_better": False, "target": -math.inf})
    calibration = tuple(sweep(prices, "train", 32))[:2]
    context = replace(real, store=prices, run=run.model_copy(update={"stop": stop}), calibration=calibration)
    made = MOVES["prune_50"].apply(context, Candidate(drawn(plan).requires_grad_(False), plan))
    assert made.plan.kept and max(made.plan.kept.values()) < 128


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prune_50", "drop_layers_25", "low_rank"])
def test_a_language_model_learns_again_and_writes_as_one_built_from_its_plan(
    name: str, real: Context, sources: Path, own_cache: Path
) -> None:
    asked = LanguageData(kind="language", path=sources / "json", files="**/*.py", vocabulary=300, length=16)
    store = prepare(asked, seed=0, cache=own_cache, emit=lambda event: None)
    plan = resolve("llama-nano", store.dataset)
    plan = plan.model_copy(update={"arguments": {**plan.arguments, "width": 96, "ffn": 128, "layers": 3}})
    run = run_plan(plan, steps=12)
    stop = run.stop.model_copy(update={"metric": "loss", "higher_is_better": False, "target": -math.inf})
    calibration = tuple(sweep(store, "train", 8))[:2]
    context = replace(real, store=store, run=run.model_copy(update={"stop": stop}), calibration=calibration)
    made = MOVES[name].apply(context, Candidate(drawn(plan).requires_grad_(False), plan))
    built = build(made.plan).eval()
    built.load_state_dict(made.model.state_dict())
    prompt = [5, 9, 200, 7]
    written = generate(built, prompt, max_tokens=8, temperature=0)  # type: ignore[arg-type]
    assert written == generate(made.model, prompt, max_tokens=8, temperature=0)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(real: Context) -> None:
    before = trained("resnet8", real)

    def weights(seed: int) -> torch.Tensor:
        made = MOVES["prune_25"].apply(replace(real, seed=seed, run=run_plan(before.plan, steps=12)), before)
        return torch.cat([each.flatten() for each in made.model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.slow
def test_learning_again_ends_with_its_seconds(real: Context) -> None:
    before = trained("resnet8", real)
    long = replace(real, seconds=2.0, run=run_plan(before.plan, steps=1_000_000))
    made = MOVES["prune_25"].apply(long, before)
    steps = int(made.says[0].split("; ")[1].split(" steps")[0].replace(",", ""))
    assert 1 <= steps < 1000
    with pytest.raises(BudgetError, match=r"nothing is left to train|are left to train"):
        MOVES["prune_25"].apply(replace(real, seconds=1e-3, run=run_plan(before.plan)), before)


def test_a_model_that_needs_all_of_its_rank_is_told(real: Context) -> None:
    with pytest.raises(JobError, match=r"every layer needs nearly all of its rank to lose less than 0%"):
        factor_move(tolerance=0.0).apply(real, trained("resnet8", real))


@pytest.mark.slow
def test_what_is_over_is_factored_less(real: Context) -> None:
    before = trained("vit-nano", real)
    move = MOVES["low_rank"]
    assert move.milder is not None
    short = replace(real, run=run_plan(before.plan, steps=4))
    found = [move.apply(short, before)]
    while (made := move.milder(short, before, found[-1])) is not None:
        found.append(made)
    assert 2 <= len(found) <= 3
    ranks = [sum(each.plan.ranks.values()) / len(each.plan.ranks) for each in found]
    assert ranks == sorted(ranks) and ranks[0] < ranks[-1]
    worst = [float(each.says[0].split("the worst loses ")[1].split("%")[0]) for each in found]
    assert worst == sorted(worst, reverse=True) and worst[1] <= 100 * TOLERANCE / 4
    assert all(each.taken == ("low_rank",) for each in found)


@pytest.mark.slow
def test_a_student_that_is_over_gives_way_to_a_larger_one_which_then_learns_on(real: Context) -> None:
    before = trained("mlp-large", real)
    move = MOVES["distil"]
    assert move.milder is not None
    short = replace(real, run=run_plan(before.plan, steps=6))
    over = move.apply(short, before)
    larger = move.milder(short, before, over)
    assert larger is not None and larger.plan.name.startswith("mlp-large@")
    rows = real.calibration[0]
    flops = [weigh(each.model, rows).flops for each in (over, larger, before)]
    assert flops[0] < flops[1] <= LARGER * flops[2]
    on = move.milder(short, before, larger)
    assert on is not None and on.plan == larger.plan and "learned on" in on.says[0]
    assert not torch.equal(answers(on.model, real), answers(larger.model, real))
    assert move.milder(short, before, on) is None


@pytest.mark.slow
def test_a_student_between_two_sizes_or_none() -> None:
    context, _ = looking("bert")
    teacher, student = (resolve(name, context.data) for name in ("bert-small", "bert-mini"))
    found = larger_student(context, teacher, student)
    assert found is not None and found.name.startswith("bert-small@")
    sizes = [weigh(build(each).eval(), context.calibration[0]).flops for each in (student, found, teacher)]
    assert sizes[0] < sizes[1] <= LARGER * sizes[2]
    assert larger_student(context, teacher, found) is None
    assert larger_student(context, teacher.model_copy(update={"name": "hf:somebody/model"}), student) is None


def test_int8_of_native_code_is_for_linear_layers() -> None:
    for family, reason in (("resnet", "most of this model is convolutions"), ("bert", None)):
        context, candidate = looking(family)
        said = MOVES["int8_torch"].applies(context, candidate)
        assert said is None or (reason or "the package 'torchao' is not installed") in said
        assert reason is None or said is not None
        context = replace(context, device=context.device.model_copy(update={"isa": ("asimddp",)}))
        assert "x86" in (MOVES["int8_torch"].applies(context, candidate) or "")


def test_moves_do_not_repeat_and_nothing_is_cut_after_folding(real: Context) -> None:
    before = trained("resnet8", real)
    folded = MOVES["fold_norms"].apply(real, before)
    assert "norms are folded" in (MOVES["prune_25"].applies(real, folded) or "")
    assert "no batch norm" in (MOVES["fold_norms"].applies(real, folded) or "")
    assert "as trained" in (MOVES["distil"].applies(real, folded) or "")
    again = replace(before, taken=("prune_25",))
    assert "pruned already" in (MOVES["prune_50"].applies(real, again) or "")
