"""Steps that are filled up and replayed: what they are filled up with reaches no text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thrifty.models.drawing import choose
from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.llama import Llama
from thrifty.models.paged import PAGE_TOKENS, Cache, Part, Shape, Step, kept_by, laid_out
from thrifty.models.replayed import MOST_GRAPHS, OFTEN, Replays, rounded
from thrifty.models.wishes import Wishes

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
SIZES: dict[str, Any] = {"vocabulary": 64, "length": 128, "layers": 2, "width": 32}
PAGES = 12


def gpt() -> GPT:
    model = GPT(**SIZES, heads=2).eval().requires_grad_(False)
    initialise(model, "xavier_normal", 0)
    return model


def llama() -> Llama:
    model = Llama(**SIZES, heads=4, kv_heads=2, ffn=48, tied=False).eval().requires_grad_(False)
    initialise(model, "xavier_normal", 0)
    return model


def read(model: GPT | Llama, cache: Cache, prompts: list[list[int]], pages: list[list[int]]) -> list[Part]:
    """Have prompts read; returns what writes a token after each."""
    cache.clear([page for each in pages for page in each])
    parts = [Part(prompt, 0, each) for prompt, each in zip(prompts, pages, strict=True)]
    step = Step(cache, parts)
    model(step.tokens_1T, step.layers(), hidden=True)
    return [Part([7 + at], len(prompt), pages[at]) for at, prompt in enumerate(prompts)]


def logits(model: GPT | Llama, step: Step) -> torch.Tensor:
    hidden_1TC = model(step.tokens_1T, step.layers(), hidden=True)
    found: torch.Tensor = torch.nn.functional.linear(hidden_1TC[0, step.last], model.head_weight)
    return found


# of lengths, one that ends a page and one that begins another; the last begins as the third does, and shares its page
PROMPTS = [list(range(1, 1 + length)) for length in (3, PAGE_TOKENS - 1, PAGE_TOKENS, 40, 50)]
THEIR_PAGES = [[5, 1], [0, 4], [2, 9], [7, 3], [2, 8]]


@given(number=st.integers(1, 5000))
def test_sizes_are_rounded_up_by_at_most_a_half(number: int) -> None:
    shape = rounded(Shape(number, number, number, number, 0), most_pages=4000)
    assert number <= shape.texts == shape.longest == shape.shared <= max(number, 1.5 * number)
    assert shape.pages == min(shape.texts, 4000) and shape.rounds == 0
    assert rounded(shape, most_pages=4000) == shape


@pytest.mark.parametrize(("texts", "shared", "rounds"), [(5, 1, 1), (8, 3, 2)])
@torch.inference_mode()
def test_what_a_step_is_filled_up_with_reaches_no_text(texts: int, shared: int, rounds: int) -> None:
    model = gpt()
    cache = kept_by(model).cache(PAGES + 1)
    for each in (*cache.keys, *cache.values):
        each.fill_(float("nan"))
    writers = read(model, cache, PROMPTS, THEIR_PAGES)
    expected = logits(model, Step(cache, writers))
    kept = [each.clone() for each in (*cache.keys, *cache.values)]
    assert Shape.of(writers)[3:] == (1, 1)
    shape = Shape(texts, PAGES, 3, shared, rounds)
    numbers = torch.tensor([number for each in laid_out(writers, shape, PAGES) for number in each])
    found = logits(model, Step.of_writers(cache, shape, numbers))
    assert torch.allclose(found[: len(writers)], expected, rtol=1e-5, atol=1e-6)
    for before, each in zip(kept, (*cache.keys, *cache.values), strict=True):
        assert torch.allclose(before[:PAGES], each[:PAGES], rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        pytest.param(gpt, torch.float32, marks=GPU, id="gpt"),
        pytest.param(llama, torch.float32, marks=GPU, id="llama"),
        pytest.param(gpt, torch.bfloat16, marks=GPU, id="gpt-bf16"),
    ],
)
@torch.inference_mode()
def test_a_step_that_is_replayed_is_the_step(make: Any, dtype: torch.dtype) -> None:
    model = make().to("cuda", dtype)
    cache = kept_by(model).cache(PAGES + 1)
    replays = Replays(cache, lambda step: logits(model, step))
    writers = read(model, cache, PROMPTS, THEIR_PAGES)
    within = 2e-2 if dtype == torch.bfloat16 else 1e-4
    for at in range(2 * OFTEN):
        expected = logits(model, Step(cache, writers))
        found = replays(writers)
        assert (found is None) == (at < OFTEN - 1)
        if found is not None:
            assert torch.allclose(found, expected, rtol=within, atol=within)
        tokens = expected.argmax(-1).tolist()
        grown = zip(writers, tokens, strict=True)
        writers = [Part([token], part.kept + 1, part.pages) for part, token in grown]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@torch.inference_mode()
def test_no_more_steps_are_recorded_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thrifty.models.replayed.MOST_GRAPHS", 2)
    model = gpt().cuda()
    cache = kept_by(model).cache(PAGES + 1)
    replays = Replays(cache, lambda step: logits(model, step))
    for count in (1, 2, 3, 1):
        writers = read(model, cache, PROMPTS[:count], THEIR_PAGES[:count])
        expected = logits(model, Step(cache, writers))
        found = [replays(writers) for _ in range(OFTEN)][-1]
        assert found is not None and torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert len(replays._recorded) == 2 < MOST_GRAPHS


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_tokens_are_chosen_where_their_logits_are(device: str) -> None:
    logits_BV = torch.randn(5, 3000, generator=torch.Generator().manual_seed(0)) * 3
    wishes = [Wishes(0.0), Wishes(1.0), Wishes(0.7, top_k=20), Wishes(0.9, top_p=0.8), Wishes(1.0, top_k=50, top_p=0.5)]
    numbers = [0.0, 0.3, 0.9, 0.5, 0.1]
    assert choose(logits_BV.to(device), wishes, numbers) == choose(logits_BV, wishes, numbers)
