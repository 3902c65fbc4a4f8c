"""The reference of job files: a table for each section, from the JSON Schema that editors are given."""

from __future__ import annotations

import json
from typing import Any

# longer lists of names are for the schema, and for `thrifty models`
_MOST_NAMES = 20


def job_fields(schema: dict[str, Any]) -> str:
    """Write every key of a job: what it takes, what it is when left out, and what it means.

    Args:
        schema: the JSON Schema of a job.
    """
    parts: list[str] = []
    waiting, seen = [("job.yaml", schema)], set[str]()
    while waiting:
        place, section = waiting.pop(0)
        parts.append(_section(place, section))
        for key, about in section["properties"].items():
            at = key if section is schema else f"{place}.{key}"
            for name in _refers(about):
                if name not in seen:
                    seen.add(name)
                    waiting.append((at, schema["$defs"][name]))
    return "\n\n".join(parts)


def _section(place: str, section: dict[str, Any]) -> str:
    tag = next((about["const"] for about in section["properties"].values() if "const" in about), None)
    bar = "\\|"
    kind = "" if tag is None else f", kind `{tag}`" + ", declared" * section["title"].startswith("Declared")
    rows = [
        f"| `{key}` | {takes(about)} | {_default(about, required=key in section.get('required', ()))} "
        f"| {about['description'].replace('|', bar)} |"
        for key, about in section["properties"].items()
    ]
    return "\n".join(
        [
            f"## `{place}`{kind} {{ #{section['title'].lower()} }}\n",
            f"{section['description']}\n",
            "| key | takes | left out | |",
            "|---|---|---|---|",
            *rows,
        ]
    )


def _refers(about: Any) -> list[str]:
    """Return the definitions that a key refers to, in order."""
    if isinstance(about, list):
        return [name for each in about for name in _refers(each)]
    if not isinstance(about, dict):
        return []
    own = [about["$ref"].rpartition("/")[2]] if "$ref" in about else []
    return own + [name for key, each in about.items() if key != "default" for name in _refers(each)]


def takes(about: dict[str, Any]) -> str:
    """Say what a key takes.

    >>> takes({"anyOf": [{"type": "integer", "minimum": 4, "maximum": 1024}, {"type": "null"}]})
    'whole number, 4 to 1,024'
    >>> takes({"enum": ["gray", "rgb"]})
    '`gray`, `rgb`'
    """
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for union in ("anyOf", "oneOf"):
        if union in about:
            return " or ".join(dict.fromkeys(takes(each) for each in about[union] if each != {"type": "null"}))
    if "const" in about or "enum" in about:
        names = about.get("enum", [about.get("const")])
        if len(names) > _MOST_NAMES:
            return f"one of {len(names)} names"
        return ", ".join(f"`{_written(name)}`" for name in names)
    if about["type"] == "array":
        return f"list of {takes(about['items'])}"
    if about["type"] == "object":
        return f"mapping to {takes(about['additionalProperties'])}"
    return _of_one(about)


def _of_one(about: dict[str, Any]) -> str:
    if about["type"] == "string":
        if "examples" in about:
            return f"amount such as `{about['examples'][0]}`"
        return {"path": "path"}.get(about.get("format", ""), "number such as `300e9`" if "pattern" in about else "text")
    if about["type"] == "boolean":
        return "`true`, `false`"
    word = "whole number" if about["type"] == "integer" else "number"
    return ", ".join([word, *_bounds(about)])


def _bounds(about: dict[str, Any]) -> list[str]:
    low, high = about.get("minimum"), about.get("maximum")
    if low is not None and high is not None and high < 2**63:
        return [f"{low:,} to {high:,}"]
    words = {"minimum": "{:,} or more", "exclusiveMinimum": "above {:,}", "exclusiveMaximum": "below {:,}"}
    if high is not None and high < 2**63:
        words["maximum"] = "{:,} or less"
    return [said.format(about[key]) for key, said in words.items() if key in about]


def _default(about: dict[str, Any], *, required: bool) -> str:
    if required:
        return "**must be given**"
    default = about.get("default")
    return "" if default in (None, {}, []) else f"`{_written(default)}`"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
