"""The conformance table of OpenAI's completions and chat, small: what clients of language models rely on.

Source: OpenAI's API reference, and what its Python client reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from thrifty.testing.conformance.table import Answer, Row, Server, holds

_NO_MODEL = "the server lists no model"


def rows(server: Server, model: str | None, sample: Any) -> Iterator[Row]:
    """The rows for a server.

    Args:
        server: to ask.
        model: of its models; the first that it lists when None.
        sample: a prompt; made up when None.
    """
    listed = holds("it lists models by id", lambda v: v["object"] == "list" and all(each["id"] for each in v["data"]))
    yield Row("models", path="/v1/models", check=listed)
    found = server.ask("GET", "/v1/models").value
    names = [each["id"] for each in found.get("data", [])] if isinstance(found, dict) else []
    model = model or next(iter(names), None)
    skip = _NO_MODEL if model is None else ""
    prompt = sample if isinstance(sample, str) else "The cat"
    asked = {"model": model, "prompt": prompt, "max_tokens": 3, "temperature": 0}
    spoken = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 3, "temperature": 0}
    for name, path, body, said in (
        ("completion", "/v1/completions", asked, _is_completion),
        ("chat", "/v1/chat/completions", spoken, _is_chat),
    ):
        yield Row(name, "POST", path, body, check=holds(f"it is a {name} with its usage", said), skip=skip)
        yield Row(f"{name} in parts", "POST", path, {**body, "stream": True}, check=_is_stream, skip=skip)
        unknown = {**body, "model": "no-such-model"}
        yield Row(f"{name} of an unknown model", "POST", path, unknown, (404,), _is_error, skip=skip)
        for wrong, change in (("no length", {"max_tokens": "x"}), ("a wrong temperature", {"temperature": -1})):
            yield Row(f"{name} of {wrong}", "POST", path, {**body, **change}, (400, 422), _is_error, skip=skip)
        yield Row(f"{name} of no JSON", "POST", path, b"{", (400,), _is_error)
    empty: dict[str, Any] = {"model": model, "messages": []}
    yield Row("chat of no messages", "POST", "/v1/chat/completions", empty, (400, 422), _is_error, skip=skip)


def _is_completion(value: Any) -> bool:
    (choice,) = value["choices"]
    return value["object"] == "text_completion" and isinstance(choice["text"], str) and _is_used(value)


def _is_chat(value: Any) -> bool:
    (choice,) = value["choices"]
    message = choice["message"]
    spoken = message["role"] == "assistant" and isinstance(message["content"], str)
    return value["object"] == "chat.completion" and spoken and _is_used(value)


def _is_used(value: Any) -> bool:
    usage = value["usage"]
    ended = value["choices"][0]["finish_reason"] in {"stop", "length"}
    return bool(ended and usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"])


def _is_stream(answer: Answer) -> str:
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        return "the content type is not text/event-stream"
    events = [each[6:] for each in answer.body.decode().split("\n\n") if each.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        return "the last event is not [DONE]"
    reasons = [choice.get("finish_reason") for each in events[:-1] for choice in json.loads(each)["choices"]]
    return "" if any(reasons) else "no part says why it ended"


def _is_error(answer: Answer) -> str:
    value = answer.value
    error = value.get("error") if isinstance(value, dict) else None
    told = isinstance(error, dict) and isinstance(error.get("message"), str) and isinstance(error.get("type"), str)
    return "" if told else "the body is not an error with message and type"
