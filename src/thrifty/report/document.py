"""`render`: a template and its figures as one HTML document that needs no network, no server and no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.resources import files
from typing import Any

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thrifty import __version__
from thrifty.report.words import (
    Language,
    bold,
    both,
    chinese,
    code,
    figure_words,
    isolated,
    labelled,
    option,
    same,
    strong,
    titled,
)


def render(
    template: str, figures_json: Sequence[Mapping[str, Any]], *, language: Language = "en", **values: Any
) -> str:
    """Fill a template of this folder; what comes from users is escaped.

    Args:
        template: its file name.
        figures_json: every figure of the page, as plotly's JSON.
        language: that the page opens in.
        values: what the template shows.
    """
    plotly, drawing = _plotly(), _asset("language.js") + _asset("page.js")
    return str(
        _template(template).render(
            version=__version__,
            policy=_policy(plotly, drawing),
            css=Markup(_asset("page.css")),
            plotly=Markup(plotly),
            drawing=Markup(drawing),
            figures_json=_json(figures_json),
            words_json=_json(figure_words(figures_json)),
            language=language,
            labelled=partial(labelled, language=language),
            labelled_image=partial(labelled, attribute="alt", language=language),
            titled=partial(titled, language=language),
            **values,
        )
    )


def fragment(template: str, **values: Any) -> str:
    """Fill a template of this folder that is a part of somebody else's page: no script, no policy of its own."""
    return str(_template(template).render(**values))


def environment(loader: BaseLoader) -> Environment:
    """Return what fills the templates of pages: it escapes, refuses names that nobody gave, and has both languages."""
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    made.globals |= {
        "t": both, "zh": chinese, "strong": strong, "bold": bold, "code": code, "isolated": isolated, "same": same,
        "labelled": labelled, "titled": titled, "option": option,
    }  # fmt: skip
    return made


@cache
def _template(name: str) -> Any:
    return environment(PackageLoader("thrifty.report", "")).get_template(name)


def _asset(name: str) -> str:
    return files("thrifty.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    script = files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    # an HTML parser would end the script at the first, and misread it from the second on
    assert "</script" not in script.lower() and "<!--" not in script
    return script


def _policy(*scripts: str) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    # plotly writes its own style sheet, so styles cannot be held to hashes
    rest = "style-src 'unsafe-inline'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"


def _json(value: Any) -> Markup:
    """JSON that no text in it can break out of the element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
