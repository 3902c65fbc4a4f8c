"""Language models see the past alone, and write the same text with and without remembering it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thrifty.errors import RequestError
from thrifty.models.exchange import load_weights, read_plan
from thrifty.models.generate import generate
from thrifty.models.gpt import GPT
from thrifty.models.init import initialise
from thrifty.models.llama import Llama
from thrifty.models.table import build

VOCABULARY, LENGTH = 50, 12
SIZES = {"vocabulary": VOCABULARY, "length": LENGTH, "layers": 2, "width": 16}
MODELS: dict[str, Callable[[], GPT | Llama]] = {
    "gpt": lambda: GPT(**SIZES, heads=2),
    "llama": lambda: Llama(**SIZES, heads=2, kv_heads=2, ffn=24, tied=True),
    "llama in groups": lambda: Llama(**SIZES, heads=4, kv_heads=2, ffn=24, tied=False),
}
STORIES = Path(os.environ.get("THRIFTY_SHARED", Path(__file__).parents[3] / "shared" / "data")) / "ckpt_stories260k"


@pytest.fixture(scope="module", params=["gpt", pytest.param("llama", marks=pytest.mark.slow), "llama in groups"])
def model(request: pytest.FixtureRequest) -> GPT | Llama:
    model = MODELS[request.param]().double().eval()
    initialise(model, "xavier_normal", 0)
    return model


def written_slowly(model: nn.Module, tokens: list[int], count: int) -> list[int]:
    """The likeliest token, `count` times, reading all of the context for each."""
    text = list(tokens)
    with torch.no_grad():
        for _ in range(count):
            text.append(int(model(torch.tensor([text[-LENGTH:]]))[0, -1].argmax()))
    return text[len(tokens) :]


@settings(max_examples=10, deadline=None)
@given(prompt=st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=2 * LENGTH), count=st.integers(0, 20))
def test_remembering_changes_no_token(model: GPT | Llama, prompt: list[int], count: int) -> None:
    assert generate(model, prompt, max_tokens=count, temperature=0) == written_slowly(model, prompt, count)


def test_what_is_not_remembered_is_read_again(model: GPT | Llama) -> None:
    prompt = [3, 1, 4]
    remembered, again = (
        generate(model, prompt, max_tokens=2 * LENGTH, temperature=0, remember=remember) for remember in (True, False)
    )
    assert remembered == again


@pytest.mark.slow
@pytest.mark.skipif(not STORIES.is_dir(), reason="needs the checkpoint ckpt_stories260k of ../shared/data")
@pytest.mark.parametrize("remember", [True, False])
def test_a_published_llama_writes_its_published_story(remember: bool) -> None:
    plan = read_plan(STORIES / "hf")
    model = build(plan)
    load_weights(model, plan, STORIES / "hf")
    first, *story = json.loads((STORIES / "greedy256_token_ids.json").read_text())
    assert generate(model, [first], max_tokens=256, temperature=0, remember=remember) == story


def test_a_model_that_does_not_know_its_length_writes_with_the_length_it_is_given(model: GPT | Llama) -> None:
    wrapped, prompt = torch.nn.Sequential(model), list(range(1, LENGTH + 3))
    expected = written_slowly(model, prompt, 5)
    assert generate(wrapped, prompt, max_tokens=5, temperature=0, length=LENGTH) == expected


def test_reading_in_parts_gives_the_same_logits(model: GPT | Llama) -> None:
    tokens_BT = torch.randint(VOCABULARY, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    pasts = model.pasts(LENGTH)
    with torch.no_grad():
        parts = [model(tokens_BT[:, :5], pasts)] + [model(tokens_BT[:, t : t + 1], pasts) for t in range(5, LENGTH)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens_BT))
    assert pasts[0].length == LENGTH


def test_no_token_sees_the_future(model: GPT | Llama) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(VOCABULARY, (1, LENGTH), generator=generator)
    other_BT = tokens_BT.clone()
    other_BT[0, 7:] = (other_BT[0, 7:] + 1) % VOCABULARY
    before, after = model(tokens_BT), model(other_BT)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("model", ["gpt"], indirect=True)
def test_drawing_follows_the_generator_and_top_k(model: GPT | Llama) -> None:
    def draw(seed: int, **options: float | int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return generate(model, [1, 2], max_tokens=30, generator=generator, **options)  # type: ignore[arg-type]

    state = torch.get_rng_state()
    assert draw(0) == draw(0) != draw(1)
    assert draw(0, top_k=1) == generate(model, [1, 2], max_tokens=30, temperature=0)
    assert draw(0, temperature=1e-6) == draw(0, top_k=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("model", ["gpt"], indirect=True)
def test_drawing_is_by_the_probabilities(model: GPT | Llama) -> None:
    with torch.no_grad():
        wanted = model(torch.tensor([[3]]))[0, -1].div(0.5).topk(5)
    generator = torch.Generator().manual_seed(0)
    drawn = [generate(model, [3], max_tokens=1, temperature=0.5, top_k=5, generator=generator)[0] for _ in range(400)]
    for token, share in zip(wanted.indices.tolist(), wanted.values.softmax(0).tolist(), strict=True):
        # four standard deviations of a share of 400 draws
        assert abs(drawn.count(token) / 400 - share) < 4 * (share * (1 - share) / 400) ** 0.5
    assert set(drawn) <= set(wanted.indices.tolist())


def test_the_mode_is_left_as_it_was(model: GPT | Llama) -> None:
    model.train()
    generate(model, [1], max_tokens=2)
    assert model.training
    model.eval()


@pytest.mark.parametrize(
    ("tokens", "options", "says"),
    [
        ([], {}, "the prompt is empty"),
        ([1, VOCABULARY], {}, f"token {VOCABULARY} is outside the vocabulary of {VOCABULARY}"),
        ([-1], {}, "token -1 is outside"),
        ([1], {"max_tokens": -1}, "max_tokens is -1"),
        ([1], {"temperature": -0.5}, "temperature is -0.5"),
        ([1], {"temperature": float("nan")}, "temperature is nan"),
        ([1], {"top_k": 0}, "top_k is 0"),
    ],
)
def test_requests_that_cannot_be_meant(
    model: GPT | Llama, tokens: list[int], options: dict[str, float], says: str
) -> None:
    with pytest.raises(RequestError, match=says):
        generate(model, tokens, **{"max_tokens": 1, **options})  # type: ignore[arg-type]
