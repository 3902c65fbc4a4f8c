"""The ground all nouns stand on: frozen data that forbids unknown keys and goes to and from JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Plain(BaseModel):
    """Frozen data without behaviour; equal when its fields are equal.

    To derive one, ``model_copy(update={...})``; as a file, ``model_dump_json()`` and ``model_validate_json``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=True, ser_json_inf_nan="constants")
