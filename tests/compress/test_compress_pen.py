"""Tokens a second of writing: the same tokens as the model alone writes, timed, and a search by them."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "models"))
sys.path.insert(0, str(Path(__file__).parent))
from small_models import drawn, small_plan
from test_compress_moves import looking, run_plan

from made_devices import device
from thrifty.compress.guard import Guard, parse_drop
from thrifty.compress.measure import measure, prompts
from thrifty.compress.moves import MOVES, Candidate, Context
from thrifty.compress.moves.move import Form
from thrifty.compress.pen import TOKENS, Pen, tokens_of
from thrifty.compress.search import Asked, search
from thrifty.compress.value import share
from thrifty.data import prepare, sweep
from thrifty.errors import BundleError
from thrifty.models import resolve
from thrifty.models.generate import generate
from thrifty.spec import LanguageData

LENGTH = 12


def asked(rows: int) -> torch.Tensor:
    return torch.randint(32, (rows, tokens_of(LENGTH)), generator=torch.Generator().manual_seed(rows))


@pytest.mark.parametrize("family", ["gpt", "llama"])
def test_a_pen_writes_what_the_model_writes(family: str) -> None:
    plan = small_plan(family)
    model = drawn(plan).requires_grad_(False)
    pen = Pen(Candidate(model, plan), LENGTH, texts=3)
    for rows in (3, 1):
        prompts_BT = asked(rows)
        expected = [generate(model, each, max_tokens=6, temperature=0) for each in prompts_BT.tolist()]
        assert pen(prompts_BT).tolist() == pen(prompts_BT).tolist() == expected


def test_prompts_are_as_long_as_what_is_written() -> None:
    assert [tokens_of(length) for length in (1, 12, 1024)] == [1, 6, TOKENS]


def test_a_pen_writes_by_a_form_of_torch_and_says_when_it_cannot(tmp_path: Path) -> None:
    plan = small_plan("gpt")
    model = drawn(plan).requires_grad_(False)
    form = Form("torch", "bf16", tmp_path, model, drawn(plan).to(torch.bfloat16).requires_grad_(False))
    found = Pen(Candidate(model, plan, form=form), LENGTH, texts=2)(asked(2))
    assert found.shape == (2, 6) and found.dtype == torch.int64
    broken = drawn(plan)
    broken.wte.weight.data.fill_(math.nan)  # type: ignore[operator, union-attr]
    with pytest.raises(BundleError, match=r"cannot write: .*NaN"):
        Pen(Candidate(broken.requires_grad_(False), plan), LENGTH, texts=1)(asked(1))


def test_tokens_a_second_are_measured_of_what_is_written() -> None:
    plan = small_plan("gpt")
    pen = Pen(Candidate(drawn(plan).requires_grad_(False), plan), LENGTH, texts=2)
    (found,) = measure(
        {"it": pen}, {2: [asked(2)]}, {"it": 1}, device(), batch=2, tokens=6, rounds=2, round_s=0.001
    ).values()
    assert found.tokens_per_s is not None
    assert found.tokens_per_s.low <= found.tokens_per_s.value <= found.tokens_per_s.high
    assert found.tokens_per_s.high == pytest.approx(2 * 6 / found.latency_s.low)
    assert share("tokens", found, found) == 1


def test_int8_as_torch_writes_is_a_move_where_the_processor_has_it(tmp_path: Path) -> None:
    context, candidate = looking("gpt")
    move = MOVES["int8_writing"]
    assert "no products of int8" in str(move.applies(context, candidate))
    assert "of GPT and Llama alone" in str(move.applies(context, replace(candidate, plan=small_plan("bert"))))
    assert "for language models" in str(move.applies(*looking("bert")))
    vnni = replace(context, device=context.device.model_copy(update={"isa": ("avx2", "avx512_vnni")}), scratch=tmp_path)
    assert move.applies(vnni, candidate) is None
    made = move.apply(vnni, replace(candidate, model=candidate.model.requires_grad_(False)))
    assert made.form is not None and (made.form.engine, made.form.precision) == ("torch", "int8")
    x = asked(2)
    apart = (made.answers(x) - candidate.answers(x)).abs().max() / candidate.answers(x).abs().max()
    assert 0 < apart < 0.1
    assert Pen(made, LENGTH, texts=2)(x).shape == (2, 6)


@pytest.mark.slow
def test_a_search_for_tokens_takes_what_writes_faster(sources: Path, own_cache: Path, tmp_path: Path) -> None:
    data = LanguageData(kind="language", path=sources / "json", files="**/*.py", vocabulary=300, length=32)
    store = prepare(data, seed=0, cache=own_cache, emit=lambda event: None)
    plan = resolve("gpt-nano", store.dataset)
    plan = plan.model_copy(update={"arguments": {**plan.arguments, "width": 64, "heads": 2, "layers": 6}})
    run = run_plan(plan, steps=4)
    stop = run.stop.model_copy(update={"metric": "loss", "higher_is_better": False, "target": math.inf})
    context: Context = replace(
        looking("gpt")[0], store=store, run=run.model_copy(update={"stop": stop}), objective="tokens", batch=2,
        calibration=tuple(sweep(store, "train", 8))[:2], scratch=tmp_path,
    )  # fmt: skip
    reference = Candidate(drawn(plan).requires_grad_(False), plan)
    guard = Guard(store, context.run, "validation", parse_drop("90%"), reference.answers)
    asking = Asked(1e9, lambda: 60.0, prompts(store, 2))
    found = search(reference, {"drop_layers_25": MOVES["drop_layers_25"]}, guard, context, asking)
    assert found.chosen.candidate.taken == ("drop_layers_25",), found.tried
    before, after = (each.measured for each in found.tried)
    assert before is not None and after is not None and before.tokens_per_s and after.tokens_per_s
    assert found.chosen.share < 0.98
    assert after.tokens_per_s.high > before.tokens_per_s.low
