"""What OpenAI's protocol answers with: completions, chunks of them, probabilities, the list of models, errors."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from thrifty.errors import RequestError, ThriftyError
from thrifty.serve.generation.order import Piece, Told
from thrifty.serve.http import Reply, json_reply
from thrifty.serve.models import Models
from thrifty.serve.openai.asking import Asked
from thrifty.serve.openai.fields import FieldError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_LEAST = -9999.0  # what OpenAI says in the place of a log probability that JSON has no number for
DONE = b"data: [DONE]\n\n"


class Replies:
    """The objects of one request's answer.

    Args:
        asked: the request.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._head = {
            "id": f"{'chatcmpl' if asked.chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": "chat.completion" if asked.chat else "text_completion",
            "created": int(time.time()),
            "model": asked.model.name,
        }
        self._tokens = [0] * len(asked.orders)
        self._shared = [0] * len(asked.orders)
        self._offsets = [0] * len(asked.orders)

    def whole(self, pieces: Sequence[Piece]) -> Reply:
        """The answer at once, of the last piece of each choice."""
        choices = []
        for index, piece in enumerate(pieces):
            self._tokens[index], self._shared[index] = piece.tokens, piece.shared
            said: dict[str, Any] = {"text": piece.text}
            if self._asked.chat:
                said = {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
            probabilities = self._probabilities(index, piece)
            choices.append({"index": index, **said, "logprobs": probabilities, "finish_reason": piece.end})
        return json_reply({**self._head, "choices": choices, "usage": self._usage()})

    def begin(self) -> Iterator[bytes]:
        """Events before the first piece."""
        if self._asked.chat:
            for index in range(len(self._asked.orders)):
                yield self._event({"index": index, "delta": {"role": "assistant", "content": ""}})

    def piece(self, index: int, piece: Piece) -> bytes:
        """The event of a piece of a choice."""
        self._tokens[index], self._shared[index] = piece.tokens, piece.shared
        said = {"delta": {"content": piece.text}} if self._asked.chat else {"text": piece.text}
        return self._event({"index": index, **said, "logprobs": self._probabilities(index, piece)}, piece.end)

    def end(self) -> Iterator[bytes]:
        """Events after the last piece."""
        if self._asked.usage:
            yield _event({**self._head, **self._kind(), "choices": [], "usage": self._usage()})
        yield DONE

    def _event(self, choice: dict[str, Any], end: str = "") -> bytes:
        return _event({**self._head, **self._kind(), "choices": [{**choice, "finish_reason": end or None}]})

    def _kind(self) -> dict[str, str]:
        return {"object": "chat.completion.chunk"} if self._asked.chat else {}

    def _usage(self) -> dict[str, Any]:
        read, written, choices = self._asked.prompt_tokens, sum(self._tokens), self._asked.choices
        # a prompt is billed once, by that of its choices which had most of it to read
        shared = sum(min(self._shared[at : at + choices]) for at in range(0, len(self._shared), choices))
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": shared},
        }

    def _probabilities(self, index: int, piece: Piece) -> dict[str, Any] | None:
        likeliest = self._asked.orders[index].likeliest
        if likeliest is None:
            return None
        tokenizer = self._asked.tokenizer
        if self._asked.chat:
            return {"content": [_of_chat(tokenizer, each) for each in piece.told], "refusal": None}
        texts = [_text(tokenizer, each.token) for each in piece.told]
        offsets = []
        for text in texts:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(text)
        tops = [{_text(tokenizer, token): _finite(log) for token, log in each.likeliest} for each in piece.told]
        return {
            "tokens": texts,
            "token_logprobs": [_finite(each.log_probability) for each in piece.told],
            "top_logprobs": tops if likeliest else None,
            "text_offset": offsets,
        }


def list_models(models: Models) -> Reply:
    """Answer ``GET /v1/models``: language models that write many texts, each name once."""
    named = {model.name: model for model in models if model.writer is not None}
    entries = [
        {"id": name, "object": "model", "created": _seconds(model.bundle.info.created), "owned_by": "thrifty"}
        for name, model in sorted(named.items())
    ]
    return json_reply({"object": "list", "data": entries})


def error_body(error: ThriftyError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    status = error.status if isinstance(error, RequestError) else 400
    kind = "server_error" if status >= 500 else "authentication_error" if status == 401 else "invalid_request_error"
    param, code = (error.param, error.code) if isinstance(error, FieldError) else (None, None)
    text = str(error) if error.mend else error.what
    return {"error": {"message": text.encode("utf-8", "replace").decode(), "type": kind, "param": param, "code": code}}


def error_reply(error: ThriftyError, *headers: tuple[bytes, bytes]) -> Reply:
    """Answer with an error in OpenAI's form."""
    status = error.status if isinstance(error, RequestError) else 400
    body = msgspec.json.encode(error_body(error))
    return Reply(status, body, close=status in {408, 413}, headers=headers)


def error_event(error: ThriftyError) -> bytes:
    """An error within a stream."""
    return _event(error_body(error))


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _of_chat(tokenizer: Tokenizer, told: Told) -> dict[str, Any]:
    def one(token: int, log: float) -> dict[str, Any]:
        text = _text(tokenizer, token)
        return {"token": text, "logprob": _finite(log), "bytes": list(text.encode())}

    return {
        **one(told.token, told.log_probability),
        "top_logprobs": [one(token, log) for token, log in told.likeliest],
    }


def _text(tokenizer: Tokenizer, token: int) -> str:
    return str(tokenizer.decode([token], skip_special_tokens=False))


def _finite(log: float) -> float:
    return max(log, _LEAST)


def _seconds(date: str) -> int:
    from datetime import datetime

    try:
        return int(datetime.fromisoformat(date).timestamp())
    except ValueError:
        return 0
