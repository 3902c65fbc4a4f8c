"""OpenAI's protocol by its own client over a real server: whole and streamed answers, errors, clients that leave."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest
import torch
from made_bundles import write_image_bundle, write_language_bundle
from real_server import running, serving

from thrifty import serve
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.models.paged import Part
from thrifty.serve import Limits
from thrifty.serve.generation.order import Order

SOON = 30.0
LENGTH = 160


@pytest.fixture(scope="module")
def teller(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("teller") / "bundle"
    write_language_bundle(folder, name="teller", scheme="xavier_normal", length=LENGTH)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def base(teller: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("cats") / "bundle"
    write_image_bundle(folder, name="cats")
    with running([teller, load_bundle(folder)], limits=Limits(prompt_bytes=2000, request_rows=64)) as url:
        yield url


@pytest.fixture(scope="module")
def ask(base: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{base}/v1", api_key="none", max_retries=0, timeout=SOON) as client:
        yield client


def used_pages(base: str) -> int:
    found = re.search(r'thrifty_cache_pages\{model="teller:1",state="used"\} (\d+)', httpx.get(f"{base}/metrics").text)
    assert found is not None
    return int(found[1])


def greedy(teller: Bundle, prompt: str, count: int) -> str:
    return str(teller.predict(prompt, max_tokens=count, temperature=0)["completion"])


def test_models_are_listed_and_tensorflows_paths_stay(ask: openai.OpenAI, base: str) -> None:
    assert [model.id for model in ask.models.list()] == ["teller"]
    status = httpx.get(f"{base}/v1/models/teller").json()
    assert status["model_version_status"][0]["version"] == "1"
    assert "Malformed" in httpx.post(f"{base}/v1/models").text


def test_a_completion_is_the_models(ask: openai.OpenAI, teller: Bundle) -> None:
    found = ask.completions.create(model="teller", prompt="the cat", max_tokens=12, temperature=0)
    assert found.choices[0].text == greedy(teller, "the cat", 12)
    assert found.choices[0].finish_reason in {"length", "stop"}
    assert found.usage is not None and found.usage.completion_tokens == 12
    assert found.usage.total_tokens == 12 + found.usage.prompt_tokens
    assert (found.object, found.model) == ("text_completion", "teller")


def test_a_version_may_be_named(ask: openai.OpenAI) -> None:
    assert ask.completions.create(model="teller:1", prompt="a", max_tokens=1).choices
    with pytest.raises(openai.NotFoundError):
        ask.completions.create(model="teller:2", prompt="a", max_tokens=1)


def test_several_prompts_and_choices_keep_their_order(ask: openai.OpenAI, teller: Bundle) -> None:
    prompts = ["the dog", "the mat"]
    found = ask.completions.create(model="teller", prompt=prompts, max_tokens=6, temperature=0, n=2)
    assert [each.index for each in found.choices] == [0, 1, 2, 3]
    assert [each.text for each in found.choices] == [greedy(teller, each, 6) for each in prompts for _ in range(2)]
    tokens = [teller.form.tokenizer.encode(each).ids for each in prompts]  # type: ignore[attr-defined]
    by_tokens = ask.completions.create(model="teller", prompt=tokens, max_tokens=6, temperature=0)
    assert [each.text for each in by_tokens.choices] == [found.choices[0].text, found.choices[2].text]


def test_a_seed_gives_the_same_text_whatever_is_asked_beside_it(ask: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "teller", "max_tokens": 20, "temperature": 1.2, "top_p": 0.95, "seed": 7}
    alone = ask.completions.create(prompt="the", **options).choices[0].text
    beside = ask.completions.create(prompt=["mat", "the"], n=3, **options)
    assert beside.choices[3].text == alone
    assert len({each.text for each in beside.choices[3:]}) > 1, "choices of one prompt have seeds of their own"


def test_what_was_read_before_is_told_in_the_usage(ask: openai.OpenAI, base: str) -> None:
    options: dict[str, Any] = {"model": "teller", "prompt": [*range(5, 75)], "max_tokens": 6, "seed": 3}

    def cached(usage: Any) -> int:
        return int(usage.prompt_tokens_details.cached_tokens)

    first, again, other = (
        ask.completions.create(**options, **more)
        for more in ({"n": 2}, {"n": 2}, {"extra_body": {"cache_salt": "others see no trace of it"}})
    )
    assert [cached(each.usage) for each in (first, again, other)] == [0, 64, 0]
    assert [each.text for each in again.choices] == [each.text for each in first.choices]
    assert other.choices[0].text == first.choices[0].text
    chunks = list(ask.completions.create(stream=True, stream_options={"include_usage": True}, **options))
    assert cached(chunks[-1].usage) == 64
    prompts = [options["prompt"], [*range(105, 175)]]
    both = ask.completions.create(**{**options, "prompt": prompts})
    assert cached(both.usage) == 64 and both.usage is not None and both.usage.prompt_tokens == 140
    assert 'thrifty_prefix_tokens_total{model="teller:1"}' in httpx.get(f"{base}/metrics").text


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_put_together_is_the_whole(ask: openai.OpenAI, n: int) -> None:
    options: dict[str, Any] = {"model": "teller", "prompt": "the cat", "max_tokens": 30, "seed": 3, "n": n}
    whole = ask.completions.create(**options)
    texts, ends, usage = [""] * n, [""] * n, None
    for chunk in ask.completions.create(stream=True, stream_options={"include_usage": True}, **options):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason or ""
    assert texts == [each.text for each in whole.choices]
    assert ends == [each.finish_reason for each in whole.choices]
    assert usage == whole.usage


def test_a_chat_is_a_transcript_that_goes_on(ask: openai.OpenAI, teller: Bundle) -> None:
    messages: Any = [
        {"role": "system", "content": "sat"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    ]
    found = ask.chat.completions.create(model="teller", messages=messages, max_tokens=9, temperature=0)
    assert found.choices[0].message.content == greedy(teller, "System: sat\nUser: hi\nAssistant:", 9)
    assert found.choices[0].message.role == "assistant"
    chunks = list(
        ask.chat.completions.create(model="teller", messages=messages, max_tokens=9, temperature=0, stream=True)
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == found.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == found.choices[0].finish_reason
    assert chunks[0].object == "chat.completion.chunk"


@pytest.mark.parametrize("stream", [False, True])
def test_stops_end_a_text(ask: openai.OpenAI, teller: Bundle, stream: bool) -> None:
    whole = greedy(teller, "the cat", 40)
    stop = whole[5:8]
    found: Any = ask.completions.create(
        model="teller", prompt="the cat", max_tokens=40, temperature=0, stop=["no such", stop], stream=stream
    )
    choices = [each.choices[0] for each in found] if stream else [found.choices[0]]
    assert "".join(each.text for each in choices) == whole[: whole.index(stop)]
    assert choices[-1].finish_reason == "stop"


def test_probabilities_come_with_tokens(ask: openai.OpenAI) -> None:
    found = ask.completions.create(model="teller", prompt="the", max_tokens=4, temperature=0, logprobs=2).choices[0]
    told = found.logprobs
    assert told is not None and told.tokens and told.token_logprobs and told.top_logprobs and told.text_offset
    assert len(told.tokens) == len(told.top_logprobs) == 4 and told.text_offset[0] == 0
    assert told.token_logprobs[0] == max(told.top_logprobs[0].values())
    messages: Any = [{"role": "user", "content": "the"}]
    chat = ask.chat.completions.create(
        model="teller", messages=messages, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2
    )
    content = chat.choices[0].logprobs.content  # type: ignore[union-attr]
    assert content is not None and len(content) == 3
    assert content[0].top_logprobs[0].logprob == content[0].logprob


def test_a_client_that_closes_its_stream_frees_its_pages(ask: openai.OpenAI, base: str) -> None:
    stream = ask.completions.create(model="teller", prompt="the cat", max_tokens=150, n=8, temperature=1, stream=True)
    next(iter(stream))
    assert used_pages(base) > 0
    stream.close()
    until = time.monotonic() + SOON
    while used_pages(base) and time.monotonic() < until:
        time.sleep(0.01)
    assert used_pages(base) == 0
    left = re.search(r'thrifty_requests_total\{model="teller:1",protocol="openai",status="499"\} (\S+)',
                     httpx.get(f"{base}/metrics").text)  # fmt: skip
    assert left is not None and float(left[1]) == 1


CHAT = {"model": "teller", "messages": [{"role": "user", "content": "a"}]}
TEXT = {"model": "teller", "prompt": "a"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "code"),
    [
        pytest.param("completions", b"{", 400, None, None, id="no JSON"),
        pytest.param("completions", [], 400, "body", "invalid_type", id="no object"),
        pytest.param("completions", {"prompt": "a"}, 400, None, None, id="no model"),
        pytest.param("completions", {**TEXT, "model": 3}, 400, "model", "invalid_type", id="a number for a model"),
        pytest.param("completions", {**TEXT, "model": "nobody"}, 404, "model", "model_not_found", id="unknown model"),
        pytest.param("completions", {**TEXT, "model": "cats"}, 404, "model", None, id="a model of images"),
        pytest.param("completions", {**TEXT, "max_tokens": 0}, 400, "max_tokens", "integer_below_min_value", id="none"),
        pytest.param("completions", {**TEXT, "max_tokens": 1.5}, 400, "max_tokens", "invalid_type", id="a half"),
        pytest.param("completions", {**TEXT, "max_tokens": 160}, 400, "prompt", "context_length_exceeded", id="long"),
        pytest.param("completions", {**TEXT, "n": True}, 400, "n", "invalid_type", id="a boolean for a number"),
        pytest.param("completions", {**TEXT, "n": 100}, 400, "n", None, id="too many choices"),
        pytest.param(
            "completions", {**TEXT, "temperature": 3}, 400, "temperature", "decimal_above_max_value", id="hot"
        ),
        pytest.param("completions", {**TEXT, "stop": list("abcde")}, 400, "stop", "array_above_max_length", id="stops"),
        pytest.param("completions", {**TEXT, "stop": 7}, 400, "stop", "invalid_type", id="a number to stop"),
        pytest.param("completions", {**TEXT, "cache_salt": 7}, 400, "cache_salt", "invalid_type", id="salt"),
        pytest.param("completions", {**TEXT, "prompt": {}}, 400, "prompt", "invalid_type", id="an object"),
        pytest.param("completions", {**TEXT, "prompt": [9999]}, 400, "prompt", "invalid_value", id="unknown token"),
        pytest.param(
            "completions", {**TEXT, "prompt": "a" * 3000}, 400, "prompt", "string_above_max_length", id="bytes"
        ),
        pytest.param("completions", {**TEXT, "echo": True}, 400, "echo", "unsupported_parameter", id="echo"),
        pytest.param("completions", {**TEXT, "best_of": 2}, 400, "best_of", "unsupported_parameter", id="best of two"),
        pytest.param("completions", {**TEXT, "logprobs": 9}, 400, "logprobs", "integer_above_max_value", id="logprobs"),
        pytest.param("completions", {**TEXT, "wings": 2}, 400, "wings", None, id="unknown field"),
        pytest.param(
            "completions", {**TEXT, "stream_options": {}}, 400, "stream_options", None, id="options of no stream"
        ),
        pytest.param("chat/completions", {"model": "teller"}, 400, "messages", "missing_required_parameter", id="mute"),
        pytest.param("chat/completions", {**CHAT, "messages": []}, 400, "messages", "empty_array", id="no message"),
        pytest.param("chat/completions", {**CHAT, "messages": ["a"]}, 400, "messages[0]", "invalid_type", id="a text"),
        pytest.param(
            "chat/completions",
            {**CHAT, "messages": [{"role": "king", "content": "a"}]}, 400, "messages[0].role", "invalid_value",
            id="a king",
        ),
        pytest.param(
            "chat/completions",
            {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content",
            "invalid_value",
            id="an image",
        ),
        pytest.param("chat/completions", {**CHAT, "tools": [{}]}, 400, "tools", "unsupported_parameter", id="tools"),
        pytest.param("chat/completions", {**CHAT, "top_logprobs": 2}, 400, "top_logprobs", "invalid_value", id="tops"),
    ],
)  # fmt: skip
def test_errors_are_in_openais_form(base: str, path: str, body: Any, status: int, param: str, code: str) -> None:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = httpx.post(f"{base}/v1/{path}", content=sent)
    error = found.json()["error"]
    assert (found.status_code, error["param"], error["code"]) == (status, param, code), error
    assert error["type"] == "invalid_request_error" and error["message"]


def test_other_verbs_are_refused(base: str) -> None:
    found = httpx.get(f"{base}/v1/completions")
    assert (found.status_code, found.json()["error"]["code"]) == (405, "method_not_supported")


def test_a_full_server_says_so(teller: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    app = serve.app([teller], limits=Limits(queue_rows=1, request_rows=1, texts=1))
    (model,) = app.models
    writer = model.writer
    assert writer is not None
    with serving(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as ask:
        gate, step = threading.Event(), writer.engine.step

        def wait(parts: Sequence[Part]) -> torch.Tensor:
            assert gate.wait(SOON)
            return step(parts)

        monkeypatch.setattr(writer.engine, "step", wait)
        ends: list[str] = []
        first = Order(prompt=[5], max_tokens=2)
        for _ in range(2):
            writer.write([(first, lambda piece: ends.append(getattr(piece, "end", "")))], deadline=math.inf)
            until = time.monotonic() + SOON
            while not writer.pool.used and time.monotonic() < until:
                time.sleep(0.005)
        with pytest.raises(openai.InternalServerError) as refused:
            ask.completions.create(model="teller", prompt="the", max_tokens=2)
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) >= 1
        assert app.metrics.shed.labels(model.label)._value.get() == 1
        gate.set()
        until = time.monotonic() + SOON
        while len(ends) < 2 and time.monotonic() < until:
            time.sleep(0.005)
        assert ask.completions.create(model="teller", prompt="the", max_tokens=2).choices
        assert len(ends) == 2 and all(ends)


def test_a_server_without_language_models_loads_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, thrifty.serve.asgi; sys.exit('torch' in sys.modules)"],
        check=False,
    )
    assert done.returncode == 0
