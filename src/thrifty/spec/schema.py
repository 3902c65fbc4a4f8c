"""The job as a JSON Schema (draft 2020-12): by it editors complete a job file, and tell its mistakes as it is written.

What one key may hold is in the schema; rules between keys, and names of files, are left to `load_job`.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python

from thrifty.spec.job import Job
from thrifty.spec.plain import Plain
from thrifty.spec.units import parse_bytes, write_bytes

_ATTRIBUTE = re.compile(r"    (\w+(?:, \w+)*): (.*)")
# says which of several sections this is, and is not for the docstring to repeat
_TAG = "which of the kinds this is."


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job.

    >>> job_schema()["required"]
    ['name', 'data', 'model']
    """
    schema = Job.model_json_schema(schema_generator=_Described)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def attributes_of(noun: type[BaseModel]) -> dict[str, str]:
    """Return what a noun's docstring says of each field, by name.

    >>> from thrifty.spec.augment import RandAugment
    >>> attributes_of(RandAugment)["changes"]
    'for each image; 0 for none.'
    """
    _, _, section = inspect.cleandoc(noun.__doc__ or "").partition("Attributes:\n")
    said: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if entry := _ATTRIBUTE.match(line):
            names = entry[1].split(", ")
            said.update(dict.fromkeys(names, entry[2]))
        else:
            said.update({name: f"{said[name]} {line.strip()}" for name in names})
    return said


class _Described(GenerateJsonSchema):
    """Descriptions are those of docstrings; defaults are written as a job has them, and none where the plan decides."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made, noun = super().model_schema(schema), schema["cls"]
        made["description"] = inspect.cleandoc(noun.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
        said = attributes_of(noun)
        for name, field in noun.model_fields.items():
            about = made["properties"][name]
            about["description"] = _TAG if "const" in about else said[name]
            about.pop("default", None)
            if not field.is_required() and (default := _written(field)) is not None:
                about["default"] = default
        return made


def _written(field: FieldInfo) -> Any:
    """Return a field's default as a job would say it; None where there is none to say."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, Plain):
        return default.model_dump(mode="json", exclude_defaults=True)
    if any(getattr(each, "func", None) is parse_bytes for each in field.metadata):
        return write_bytes(default)
    return to_jsonable_python(default)
