"""English and Chinese side by side: what a page says, in both, of which its reader sees one.

The words are a table, `thrifty.report.chinese.CHINESE`: English, with a name in braces for what varies, to Chinese.
Numbers, units, and names of people's own stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

from markupsafe import Markup, escape

from thrifty.report.chinese import CHINESE, GENERATED

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
# what a page's script may say otherwise in a figure: titles of axes, names of traces, categories and texts
_TEXTS = ("x", "y", "text")
_NUMBERED = re.compile(r"(\S+) (\d+)")
# what stands for a name or a text of somebody's may be anything; figures are no half of a sentence
_FREE = frozenset({"files", "kind", "name", "path", "reason", "what"})
_ANY, _PLAIN = r".+?", r"[^;()]+?"
_LONGEST = 400


class Pair(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str


def chinese(text: str) -> str:
    """Say an English text of the table in Chinese, as a whole or by its pattern; any other stays as it is.

    >>> chinese("peak memory"), chinese("skipped, 6 times"), chinese("resnet8")
    ('峰值内存', '跳过，6 次', 'resnet8')
    """
    bare = text.strip()
    return text if not bare or (found := _chinese(bare)) == bare else found


@lru_cache(maxsize=4096)
def _chinese(text: str) -> str:
    lower = text[:1].lower() + text[1:]
    for said in dict.fromkeys((text, lower)):
        if said in CHINESE:
            return CHINESE[said]
    # what is as long as this is a text of somebody's, and patterns would be long over it
    for pattern, meant in _patterns() if len(text) <= _LONGEST else ():
        for said in dict.fromkeys((text, lower)):
            if found := pattern.fullmatch(said):
                return meant.format(**{name: chinese(value) for name, value in found.groupdict().items()})
    # a stage of a later attempt has its number
    numbered = _NUMBERED.fullmatch(text)
    return f"{chinese(numbered[1])} {numbered[2]}" if numbered else text


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Patterns of what varies, those with the most of their own words first."""
    varying = sorted(GENERATED, key=lambda english: len(re.sub(r"\{\w+\}", "", english)), reverse=True)
    found = []
    for english in varying:
        seen: set[str] = set()
        parts = []
        for part in re.split(r"(\{\w+\})", english):
            name = part[1:-1] if part.startswith("{") else ""
            parts.append(
                re.escape(part)
                if not name
                else f"(?P={name})"
                if name in seen
                else f"(?P<{name}>{_ANY if name in _FREE else _PLAIN})"
            )
            seen.add(name)
        found.append((re.compile("".join(parts), re.DOTALL), CHINESE[english]))
    return found


def pair(text: str, **values: Any) -> Pair:
    """Fill a text of the table in both languages; what is filled in is said in each where the table has it."""
    return Pair(
        text.format(**{name: _said(value, "en") for name, value in values.items()}),
        CHINESE.get(text, text).format(**{name: _said(value, "zh") for name, value in values.items()}),
    )


def joined(parts: Sequence[str | Pair]) -> Pair:
    """Join texts, each in both languages.

    >>> joined(["compiled", "resnet8"])
    Pair(en='compiled, resnet8', zh='已编译，resnet8')
    """
    english, other = (
        comma.join(_said(part, language) for part in parts)
        for comma, language in zip((", ", "，"), LANGUAGES, strict=True)
    )
    return Pair(english, other)


def both(text: str | Pair, **values: Any) -> Markup:
    """Write a text as markup that holds both languages, of which the style sheet shows one; what is filled in is safe.

    >>> both("predicted {due}", due="<3")
    Markup('<span class="en">predicted &lt;3</span><span class="zh" lang="zh-Hans">预测 &lt;3</span>')
    >>> both("resnet8")
    Markup('resnet8')
    """
    if isinstance(text, Pair):
        english, other = escape(text.en), escape(text.zh)
    elif values:
        english, other = _filled(text, values, "en"), _filled(CHINESE.get(text, text), values, "zh")
    else:
        english, other = escape(text), escape(chinese(text))
    if english == other:
        return english
    return Markup('<span class="en">{}</span><span class="zh" lang="zh-Hans">{}</span>').format(english, other)


def _filled(text: str, values: Mapping[str, Any], language: Language) -> Markup:
    return escape(text).format(**{name: _said(value, language) for name, value in values.items()})


def _said(value: Any, language: Language) -> str:
    if isinstance(value, Pair):
        return value.zh if language == "zh" else value.en
    if isinstance(value, Markup) or language == "en":
        return value if isinstance(value, str) else str(value)
    return chinese(str(value))


def labelled(text: str, attribute: str = "aria-label", language: Language = "en", **values: Any) -> Markup:
    """Write the attribute that names an element, and beside it what the page's script sets in the other language."""
    said = pair(text, **values) if values else Pair(text, chinese(text))
    shown, other = (said.zh, said.en) if language == "zh" else said
    return Markup('{}="{}" data-other-{}="{}"').format(Markup(attribute), shown, Markup(attribute), other)


def strong(text: str) -> Markup:
    return Markup("<strong>{}</strong>").format(text)


def bold(text: str) -> Markup:
    return Markup("<b><bdi>{}</bdi></b>").format(text)


def code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def isolated(text: str) -> Markup:
    return Markup("<bdi>{}</bdi>").format(text)


def figure_words(figures: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what a page's figures say within themselves, English to Chinese, for the page's script."""
    said = dict.fromkeys(text for figure in figures for text in _texts(figure))
    return {text: other for text in said if (other := chinese(text)) != text}


def _texts(figure: Mapping[str, Any]) -> Iterator[str]:
    for trace in figure["data"]:
        yield str(trace.get("name", ""))
        for name in _TEXTS:
            yield from (each for each in trace.get(name, ()) if isinstance(each, str))
    for axis in ("xaxis", "yaxis"):
        yield str(figure["layout"].get(axis, {}).get("title", {}).get("text", ""))
