"""English and Chinese side by side: what a page says, in both, of which its reader sees one.

The words are a table, `thrifty.report.chinese.CHINESE`: English, with a name in braces for what varies, to Chinese.
Numbers, units, and names of people's own stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

from markupsafe import Markup, escape

from thrifty.report.chinese import CHINESE, GENERATED

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
# what a page's script may say otherwise in a figure: titles of axes, names of traces, categories and texts
_TEXTS = ("x", "y", "text")
_NUMBERED = re.compile(r"(\S+) (\d+)")
_PARTED = re.compile(r"( · | x |, |: )")
_COMMAS = {", ": "，", ": ": "："}
# what stands for a name or a text of somebody's may be anything; figures are no half of a sentence
_FREE = frozenset({"files", "kind", "name", "path", "reason", "what"})
_FIGURES = frozenset({"count", "energy", "money", "step", "steps", "time"})
_ANY, _PLAIN, _FIGURE = r".+?", r"[^;()]+?", r"[^;()A-Za-z]*\d[^;()]*?"
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
                else f"(?P<{name}>{_ANY if name in _FREE else _FIGURE if name in _FIGURES else _PLAIN})"
            )
            seen.add(name)
        found.append((re.compile("".join(parts), re.DOTALL), CHINESE[english]))
    return found


def same(text: str) -> Pair:
    """Return a text of somebody's, a name say, which is what it is in both languages."""
    return Pair(text, text)


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


def english(text: str | Pair) -> str:
    """Say a text where English alone is shown, as in a terminal."""
    return text.en if isinstance(text, Pair) else text


def in_parts(text: str) -> Pair:
    """Say a text of a table in one, or part by part, which dots, commas or signs tell apart.

    >>> in_parts("bf16 · 32 at once, compiled")
    Pair(en='bf16 · 32 at once, compiled', zh='bf16 · 每次 32 个，已编译')
    """
    whole = chinese(text)
    said = (_COMMAS.get(part, chinese(part)) for part in _PARTED.split(text))
    return Pair(text, whole if whole != text else "".join(said))


def sentences(parts: Iterable[str | Pair]) -> Pair:
    """Say one after the other in each language; those that are empty are left out.

    >>> sentences([pair("predicted {due}", due="3 s"), "", same("A."), "yes"])
    Pair(en='predicted 3 s A. yes', zh='预测 3 s A. 是')
    """
    kept = [part for part in parts if part]
    english, other = (" ".join(_said(part, language) for part in kept) for language in LANGUAGES)
    # after a Chinese stop there is no space
    return Pair(english, re.sub("(?<=[。；]) ", "", other))


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


def labelled(text: str | Pair, attribute: str = "aria-label", language: Language = "en", **values: Any) -> Markup:
    """Write the attribute that names an element, and beside it what the page's script sets in the other language."""
    shown, other = _shown(text, language, **values)
    return Markup('{}="{}" data-other-{}="{}"').format(Markup(attribute), shown, Markup(attribute), other)


def titled(text: str | Pair, language: Language = "en", **values: Any) -> Markup:
    """Write the title of a page, which holds text alone: the page's script sets the other language.

    >>> titled("The bill")
    Markup('<title data-other-text="账单">The bill</title>')
    """
    shown, other = _shown(text, language, **values)
    return Markup('<title data-other-text="{}">{}</title>').format(other, shown)


def option(value: str, text: str | Pair, *, chosen: bool = False) -> Markup:
    """Write what can be chosen of some, which holds text alone as a title does.

    >>> option("done", "done", chosen=True)
    Markup('<option value="done" data-other-text="完成" selected>done</option>')
    """
    shown, other = _shown(text, "en")
    marked = Markup(" selected") if chosen else ""
    return Markup('<option value="{}" data-other-text="{}"{}>{}</option>').format(value, other, marked, shown)


def _shown(text: str | Pair, language: Language, **values: Any) -> tuple[str, str]:
    """What is shown in a language, and what it is in the other."""
    said = text if isinstance(text, Pair) else pair(text, **values) if values else Pair(text, chinese(text))
    return (said.zh, said.en) if language == "zh" else said


def strong(text: str) -> Markup:
    return Markup("<strong>{}</strong>").format(text)


def bold(text: str) -> Markup:
    return Markup("<b><bdi>{}</bdi></b>").format(text)


def code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def isolated(text: str) -> Markup:
    return Markup("<bdi>{}</bdi>").format(text)


def words_of(texts: Iterable[str | Pair]) -> dict[str, str]:
    """Return those of some texts that have Chinese, by what they are in English, for a page's script."""
    said = dict.fromkeys(text for text in texts if isinstance(text, str))
    return {text: other for text in said if (other := chinese(text)) != text}


def figure_words(figures: Sequence[Mapping[str, Any]], *, whole: bool = False) -> dict[str, str]:
    """Return what a page's figures say within themselves, English to Chinese, for the page's script.

    Args:
        figures: as plotly's JSON.
        whole: and their headings and keys, where the script writes these too.
    """
    around = [each for figure in figures for each in _around(figure)] if whole else []
    return words_of([*around, *(text for figure in figures for text in _texts(figure))])


def _around(figure: Mapping[str, Any]) -> Iterator[str | Pair]:
    yield from (figure["title"], figure["says"])
    yield from (label for label, _, _ in figure["key"])


def _texts(figure: Mapping[str, Any]) -> Iterator[str]:
    for trace in figure["data"]:
        yield str(trace.get("name", ""))
        for name in _TEXTS:
            yield from (each for each in trace.get(name, ()) if isinstance(each, str))
    for axis in ("xaxis", "yaxis"):
        yield str(figure["layout"].get(axis, {}).get("title", {}).get("text", ""))
