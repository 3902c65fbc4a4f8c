"""Texts whose keys and values lie in pages: each is to the bit what it is alone, and what the plain model writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.models import build
from thrifty.models.generate import generate
from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.llama import Llama
from thrifty.models.paged import PAGE_TOKENS, Cache, Part, Step, kept_by
from thrifty.models.reordered import Reordered, reordered
from thrifty.spec import ModelPlan

VOCABULARY, LENGTH, READ = 60, 128, 16
SIZES: dict[str, Any] = {"vocabulary": VOCABULARY, "length": LENGTH, "layers": 2, "width": 32}
FEWER = ModelPlan(name="fewer", family="gpt", arguments={**SIZES, "heads": 4}, kept={"h.1.attn": 3})
MODELS: dict[str, Callable[[], GPT | Llama]] = {
    "gpt": lambda: GPT(**SIZES, heads=2),
    "llama in groups": lambda: Llama(**SIZES, heads=4, kv_heads=2, ffn=48, tied=False),
    "gpt with a layer of fewer heads": lambda: build(FEWER),  # type: ignore[dict-item, return-value]
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name == "llama in groups" else pytest.mark.slow) for name in MODELS],
)
def model(request: pytest.FixtureRequest) -> GPT | Llama:
    model = MODELS[request.param]().eval().requires_grad_(False)
    initialise(model, "xavier_normal", 0)
    return model


def pages_from(order: list[int]) -> Iterator[int]:
    yield from order


@torch.inference_mode()
def write(model: GPT | Llama, prompts: list[list[int]], count: int, order: list[int]) -> list[list[torch.Tensor]]:
    """The logits after each prompt and each of the likeliest tokens that follow it; pages are taken in an order."""
    cache, head, fast = kept_by(model).cache(len(order)), Reordered(model.head_weight), reordered(model)
    free = pages_from(order)
    texts, kept, pages = [list(each) for each in prompts], [0] * len(prompts), [[] for _ in prompts]  # type: ignore[var-annotated]
    found: list[list[torch.Tensor]] = [[] for _ in prompts]
    while any(len(each) < count for each in found):
        parts = []
        for at in (each for each in range(len(texts)) if len(found[each]) < count):
            tokens = texts[at][kept[at] : kept[at] + READ]
            while len(pages[at]) * PAGE_TOKENS < kept[at] + len(tokens):
                pages[at].append(next(free))
                cache.clear(pages[at][-1:])
            parts.append((at, Part(tokens, kept[at], pages[at])))
        parts.sort(key=lambda each: len(each[1].tokens) > 1)
        step = Step(cache, [part for _, part in parts])
        hidden_1TC = fast(step.tokens_1T, step.layers(), hidden=True)
        for (at, part), logits_V in zip(parts, head(hidden_1TC[0, step.last]), strict=True):
            kept[at] += len(part.tokens)
            if kept[at] == len(texts[at]):
                found[at].append(logits_V)
                texts[at].append(int(logits_V.argmax()))
    return found


@settings(max_examples=4, deadline=None)
@given(lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6), seed=st.integers(0, 99), shuffled=st.booleans())
def test_a_text_is_what_it_is_alone(model: GPT | Llama, lengths: list[int], seed: int, shuffled: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    prompts = [torch.randint(VOCABULARY, (each,), generator=generator).tolist() for each in lengths]
    order = torch.randperm(40, generator=generator).tolist() if shuffled else list(range(40))
    together = write(model, prompts, 6, order)
    for prompt, logits in zip(prompts, together, strict=True):
        (alone,) = write(model, [prompt], 6, list(range(4)))
        assert all(map(torch.equal, logits, alone))
        written = [int(each.argmax()) for each in logits]
        assert written == generate(model, prompt, max_tokens=6, temperature=0)


@torch.inference_mode()
def test_bf16_texts_are_what_they_are_alone_too() -> None:
    model = MODELS["gpt"]().eval()
    initialise(model, "xavier_normal", 0)
    model.to(torch.bfloat16)
    prompts = [[1, 2, 3], [4] * 40, [5]]
    for prompt, logits in zip(prompts, write(model, prompts, 4, list(range(20))), strict=True):
        (alone,) = write(model, [prompt], 4, list(range(4)))
        assert all(map(torch.equal, logits, alone))


def read(model: GPT | Llama, cache: Cache, *parts: Part) -> torch.Tensor:
    step = Step(cache, parts)
    hidden_1TC = reordered(model)(step.tokens_1T, step.layers(), hidden=True)
    logits_BV: torch.Tensor = Reordered(model.head_weight)(hidden_1TC[0, step.last])
    return logits_BV


@torch.inference_mode()
def check_that_shared_pages_change_no_bit(model: GPT | Llama) -> None:
    """Five texts: four begin alike for two pages, of which one was read, a fifth for a page alone; a sixth does not."""
    begin = torch.randint(VOCABULARY, (2 * PAGE_TOKENS,), generator=torch.Generator().manual_seed(3)).tolist()
    other = [*begin[:PAGE_TOKENS], *begin[:PAGE_TOKENS]]
    shared = [(begin, [4, 1, own], [own, 2, 3][: 1 + own % 3]) for own in (5, 2, 7, 0)]
    texts = [*shared, (other, [4, 8, 3], [1, 2]), (other[::-1], [9, 6, 10], [7])]

    def last(cache: Cache, prompt: list[int], pages: list[int], tail: list[int], known: int) -> Part:
        for at in range(known, len(prompt), PAGE_TOKENS):
            read(model, cache, Part(prompt[at : at + PAGE_TOKENS], at, pages))
        for at, token in enumerate(tail[:-1], len(prompt)):
            read(model, cache, Part([token], at, pages))
        return Part(tail[-1:], len(prompt) + len(tail) - 1, pages)

    cache = kept_by(model).cache(12)
    cache.clear(list(range(12)))
    known = [0, *[2 * PAGE_TOKENS] * 3, PAGE_TOKENS, 0]
    parts = [last(cache, *text, its) for text, its in zip(texts, known, strict=True)]
    together = read(model, cache, *parts)
    for (prompt, _, tail), logits_V in zip(texts, together, strict=True):
        own = kept_by(model).cache(3)
        own.clear([0, 1, 2])
        assert torch.equal(read(model, own, last(own, prompt, [0, 1, 2], tail, 0))[0], logits_V)


def test_texts_that_share_pages_are_what_they_are_alone(model: GPT | Llama) -> None:
    check_that_shared_pages_change_no_bit(model)


def test_bf16_texts_that_share_pages_are_what_they_are_alone_too() -> None:
    model = MODELS["gpt"]().eval()
    initialise(model, "xavier_normal", 0)
    check_that_shared_pages_change_no_bit(model.to(torch.bfloat16))


def test_pages_that_are_cleared_leave_nothing_behind(model: GPT | Llama) -> None:
    cache = kept_by(model).cache(2)
    for each in (*cache.keys, *cache.values):
        each.fill_(float("nan"))
    cache.clear([1])
    with torch.inference_mode():
        step = Step(cache, [Part([3], 0, [1])])
        assert bool(model(step.tokens_1T, step.layers()).isfinite().all())


def test_pages_move_with_what_they_hold() -> None:
    cache = Cache([(1, 2)], pages=4, dtype=torch.float32)
    cache.clear([0, 1, 2, 3])
    cache.keys[0][3], cache.values[0][3] = 3.0, 4.0
    cache.move({3: 0})
    assert float(cache.keys[0][0].mean()) == 3 and float(cache.values[0][0].mean()) == 4


def test_a_pages_bytes_are_those_of_keys_and_values_of_all_layers(model: GPT | Llama) -> None:
    numbers = 2 * 2 * 8 if isinstance(model, Llama) else sum(block.attn.c_proj.in_features for block in model.h)
    assert kept_by(model).page_bytes == 2 * numbers * PAGE_TOKENS * 4
