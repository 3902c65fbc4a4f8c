"""A conversation as one prompt: who speaks and what is said, a line each, and whose turn it is.

Models here are trained on plain text, and know no marks of turns: the prompt is what a transcript looks like.
"""

from __future__ import annotations

from typing import Any

from thrifty.serve.openai.fields import FieldError, wrong_type

_SPEAKERS = {"system": "System", "developer": "System", "user": "User", "assistant": "Assistant"}
# what begins the user's next turn ends the answer
STOP = "\nUser:"


def prompt_of(messages: Any) -> str:
    r"""Write a conversation as a transcript that the assistant goes on with.

    >>> prompt_of([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    'System: Be brief.\nUser: Hello\nAssistant:'

    Raises:
        FieldError: it is none.
    """
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise FieldError(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    return "".join(f"{line}\n" for line in map(_line, range(len(messages)), messages)) + "Assistant:"


def _line(place: int, message: Any) -> str:
    name = f"messages[{place}]"
    if not isinstance(message, dict):
        raise wrong_type(name, "an object", message)
    if "role" not in message:
        raise FieldError(
            f"Missing required parameter: '{name}.role'.", param=f"{name}.role", code="missing_required_parameter"
        )
    role = message["role"]
    if not isinstance(role, str) or role not in _SPEAKERS:
        known = ", ".join(f"'{each}'" for each in _SPEAKERS)
        raise FieldError(
            f"Invalid value: '{str(role)[:40]}'. Supported values are: {known}.",
            param=f"{name}.role",
            code="invalid_value",
        )
    return f"{_SPEAKERS[role]}: {_text(f'{name}.content', message.get('content'))}"


def _text(name: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong_type(name, "a string or an array of objects", content)
    for at, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise FieldError(
                f"Invalid content type at '{name}[{at}]': this model reads text alone.",
                param=name,
                code="invalid_value",
            )
    return "".join(part["text"] for part in content)
