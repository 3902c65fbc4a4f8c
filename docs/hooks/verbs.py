"""The reference of the command line: each verb with its arguments and options, as its function declares them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from typer.models import ArgumentInfo, CommandInfo, OptionInfo

# what a parameter takes, in words
_KINDS = {Path: "path", int: "whole number", float: "number", str: "text", bool: ""}


def all_verbs() -> str:
    """Write every verb of ``thrifty``, in the order of its help."""
    from thrifty.cli import app

    return "\n\n".join(map(_verb, app.registered_commands))


def _verb(command: CommandInfo) -> str:
    function = command.callback
    assert function is not None
    name = command.name or function.__name__
    declared = _declared(function)
    arguments = [_argument(key, kind, info) for key, kind, info, _ in declared if isinstance(info, ArgumentInfo)]
    return "\n".join(
        [
            f"## `{' '.join(['thrifty', name, *arguments])}` {{ #{name} }}\n",
            f"{inspect.getdoc(function)}\n",
            "| argument or option | takes | left out | |",
            "|---|---|---|---|",
            *(_row(*each) for each in declared if not each[2].hidden),
        ]
    )


def _declared(function: Callable[..., Any]) -> list[tuple[str, Any, ArgumentInfo | OptionInfo, Any]]:
    """Return name, type, declaration and default of each parameter."""
    hints = get_type_hints(function, include_extras=True)
    defaults = inspect.signature(function).parameters
    return [(key, *get_args(hint)[:2], defaults[key].default) for key, hint in hints.items() if key != "return"]


def _argument(key: str, kind: Any, info: ArgumentInfo) -> str:
    return (info.metavar or key.upper()) + "..." * (list in map(_outer, _types(kind)))


def _row(key: str, kind: Any, info: ArgumentInfo | OptionInfo, default: Any) -> str:
    if isinstance(info, ArgumentInfo):
        called = _argument(key, kind, info)
    else:
        # typer has the first name of `Option("--json", ...)` where a default once stood
        given = [str(each) for each in (info.default, *(info.param_decls or ())) if str(each).startswith("-")]
        called = ", ".join(given or [f"--{key.replace('_', '-')}"])
    if default is inspect.Parameter.empty:
        left_out = "**must be given**"
    else:
        left_out = "" if default in (None, "", False) else f"`{default}`"
    says = str(info.help or "").replace("|", "\\|")
    return f"| `{called}` | {_takes(kind)} | {left_out} | {says} |"


def _takes(kind: Any) -> str:
    several = next((each for each in _types(kind) if _outer(each) is list), None)
    if several is not None:
        return f"{_takes(get_args(several)[0])}, may be repeated"
    return _KINDS[next(iter(_types(kind)))]


def _types(kind: Any) -> list[Any]:
    """Return the types that a parameter may have beside None."""
    return (
        [each for each in get_args(kind) if each is not types.NoneType] if isinstance(kind, types.UnionType) else [kind]
    )


def _outer(kind: Any) -> Any:
    return getattr(kind, "__origin__", kind)
