"""Bodies of completions and chat completions, to what is asked of the writer."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from thrifty.models.wishes import Wishes
from thrifty.serve.generation.order import Order
from thrifty.serve.json_text import JsonError, decode
from thrifty.serve.models import Model, Models
from thrifty.serve.openai.chat import STOP, prompt_of
from thrifty.serve.openai.fields import FieldError, Fields, wrong_type

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from thrifty.serve.generation.writer import Writer

_MAX_CHOICES = 128
_MAX_STOPS = 4
_DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it
# change no answer
_IGNORED = (
    "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A request: texts to write, and how they are to be told.

    Attributes:
        model: that writes; held by whoever found it.
        orders: of each choice.
        prompt_tokens: of all prompts.
        choices: of each prompt.
        chat: told as messages.
        stream: told as they grow.
        usage: a stream ends with its bill.
    """

    model: Model
    writer: Writer
    orders: Sequence[Order]
    prompt_tokens: int
    choices: int
    chat: bool
    stream: bool
    usage: bool

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the model."""
        return self.writer.tokenizer


def parse_body(body: bytes) -> dict[str, Any]:
    """Read a request's JSON object.

    Raises:
        FieldError: it is none.
    """
    try:
        value = decode(body)
    except JsonError as error:
        raise FieldError(
            "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
            f"library correctly. {error.what})"
        ) from None
    if not isinstance(value, dict):
        raise wrong_type("body", "an object", value)
    return value


def find(given: dict[str, Any], models: Models, *, path: str) -> tuple[Model, Writer]:
    """Find the model that a request names, ``name`` or ``name:version``.

    Raises:
        FieldError: 404, there is none, or it is no language model.
    """
    name = given.get("model")
    if name is None:
        raise FieldError("you must provide a model parameter")
    if not isinstance(name, str):
        raise wrong_type("model", "a string", name)
    model = models.find(name, None)
    if model is None and name.rpartition(":")[2].isdecimal():
        base, _, version = name.rpartition(":")
        model = models.find(base, int(version[:19]))
    if model is None:
        raise FieldError(
            f"The model `{name[:100]}` does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
            status=404,
        )
    if model.writer is None:
        kind = "one that is answered alone" if model.bundle.info.task == "language" else "not a language model"
        raise FieldError(
            f"The model `{name[:100]}` is {kind} and thus not supported in the {path.removeprefix('/')} endpoint.",
            param="model",
            status=404,
        )
    return model, model.writer


def ask_completion(given: dict[str, Any], model: Model, writer: Writer) -> Asked:
    """Read what `POST /v1/completions` asks.

    Raises:
        FieldError: a field is not what it should be.
    """
    fields = Fields(given)
    prompts = [writer.encode(each) for each in _prompts(fields.take("prompt"), model)]
    most = min(model.limits.max_tokens, writer.length)
    count = fields.integer("max_tokens", 0, 1, most) if given.get("max_tokens") is not None else 0
    likeliest = None if fields.take("logprobs") is None else Fields(given).integer("logprobs", 0, 0, 5)
    n = fields.integer("n", 1, 1, _MAX_CHOICES)
    fields.refuse(best_of=(n,), echo=(False,), suffix=("",))
    return _asked(fields, model, writer, prompts, n, count or _DEFAULT_TOKENS, count > 0, likeliest, chat=False)


def ask_chat(given: dict[str, Any], model: Model, writer: Writer) -> Asked:
    """Read what `POST /v1/chat/completions` asks.

    Raises:
        FieldError: a field is not what it should be.
    """
    fields = Fields(given)
    text = prompt_of(fields.needed("messages"))
    _check_bytes("messages", text, model)
    prompts = [writer.encode(text)]
    most = min(model.limits.max_tokens, writer.length)
    count = 0
    for name in ("max_tokens", "max_completion_tokens"):
        if given.get(name) is not None:
            count = fields.integer(name, 0, 1, most)
    likeliest = fields.integer("top_logprobs", 0, 0, 20)
    told = fields.boolean("logprobs")
    if likeliest and not told:
        raise FieldError(
            "Invalid 'top_logprobs': requires 'logprobs' to be true.", param="top_logprobs", code="invalid_value"
        )
    n = fields.integer("n", 1, 1, _MAX_CHOICES)
    fields.refuse(
        tools=([],), tool_choice=("none",), functions=([],), function_call=("none",), modalities=(["text"],),
        response_format=({"type": "text"},), audio=(), prediction=(), web_search_options=(), reasoning_effort=(),
        verbosity=(),
    )  # fmt: skip
    return _asked(fields, model, writer, prompts, n, count or most, count > 0, likeliest if told else None, chat=True)


def _asked(
    fields: Fields,
    model: Model,
    writer: Writer,
    prompts: Sequence[Sequence[int]],
    n: int,
    count: int,
    counted: bool,
    likeliest: int | None,
    *,
    chat: bool,
) -> Asked:
    """Read what both have in common, and make the orders of all choices."""
    wishes = Wishes(
        temperature=fields.decimal("temperature", 1.0, 0.0, 2.0),
        top_p=fields.decimal("top_p", 1.0, 0.0, 1.0) or 1e-9,
        top_k=fields.integer("top_k", 0, 0, 2**31 - 1) or None,
    )
    seed = fields.integer("seed", secrets.randbits(62), -(2**63), 2**63 - 1) % 2**63
    stop = fields.texts("stop", _MAX_STOPS)
    salt = fields.text("cache_salt")
    stream = fields.boolean("stream")
    options = fields.take("stream_options")
    if options is not None and not (stream and isinstance(options, dict)):
        raise FieldError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    usage = Fields(options or {}).boolean("include_usage")
    fields.refuse(presence_penalty=(0, 0.0), frequency_penalty=(0, 0.0), logit_bias=({},))
    fields.end(("model", *_IGNORED))
    if len(prompts) * n > model.limits.request_rows:
        raise FieldError(
            f"Invalid 'n': {len(prompts) * n} choices. At most {model.limits.request_rows} may be asked for.", param="n"
        )
    orders = []
    for prompt in prompts:
        room = writer.length - len(prompt)
        if room < (count if counted else 1):
            raise _too_long(writer.length, len(prompt), count if counted else 1, chat=chat)
        order = Order(
            prompt=prompt,
            max_tokens=min(count, room),
            wishes=wishes,
            stop=(*stop, STOP) if chat else stop,
            likeliest=likeliest,
            growing=stream,
            salt=salt,
        )
        orders += [replace(order, seed=(seed + choice) % 2**63) for choice in range(n)]
    return Asked(model, writer, orders, sum(map(len, prompts)), n, chat, stream, usage)


def _prompts(given: Any, model: Model) -> Sequence[str | list[int]]:
    """A text, several, tokens, or several lists of them."""
    if given is None:
        given = ""
    several = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
    vocabulary = model.bundle.info.data.vocabulary
    for each in several:
        if isinstance(each, str):
            _check_bytes("prompt", each, model)
        elif not isinstance(each, list) or not each or not all(type(token) is int for token in each):
            raise wrong_type("prompt", "a string, an array of strings, or an array of tokens", each)
        elif not all(0 <= token < vocabulary for token in each):
            raise FieldError(
                f"Invalid 'prompt': tokens are 0 to {vocabulary - 1}.", param="prompt", code="invalid_value"
            )
    return several


def _check_bytes(name: str, text: str, model: Model) -> None:
    most = model.limits.prompt_bytes
    if len(text.encode("utf-8", "surrogatepass")) > most:
        raise FieldError(
            f"Invalid '{name}': string too long. Expected at most {most} bytes.",
            param=name,
            code="string_above_max_length",
        )


def _too_long(length: int, prompt: int, count: int, *, chat: bool) -> FieldError:
    name = "messages" if chat else "prompt"
    return FieldError(
        f"This model's maximum context length is {length} tokens. However, you requested {prompt + count} tokens "
        f"({prompt} in the {name}, {count} in the completion). Please reduce the length of the {name} or completion.",
        param=name,
        code="context_length_exceeded",
    )
