"""Who can be told of a run beside its own files: the names that ``report_to`` of a job knows."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from thrifty.errors import nearest

# by name: the package that it needs, and the extra that brings it
WRITERS: dict[str, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "mlflow": ("mlflow", "mlflow"),
    "wandb": ("wandb", "wandb"),
}


def _known(value: Any) -> Any:
    """Take one name or several, each of them known and said once."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"a list of names: {', '.join(WRITERS)}")
    for name in names:
        if name not in WRITERS:
            close = nearest(name, WRITERS)
            guess = f" (did you mean '{close}'?)" if close else ""
            raise ValueError(f"nothing called '{name}' can be reported to{guess}; known: {', '.join(WRITERS)}")
    if len(set(names)) < len(names):
        raise ValueError("a name is said twice")
    return tuple(names)


_NAME = {"enum": list(WRITERS)}
_WRITTEN = {"anyOf": [_NAME, {"type": "array", "items": _NAME, "uniqueItems": True}]}
ReportTo = Annotated[
    tuple[str, ...], BeforeValidator(_known, json_schema_input_type=Annotated[Any, WithJsonSchema(_WRITTEN)])
]
