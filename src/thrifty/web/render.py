"""A template filled as a page of the site; whatever stands in it is escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader
from starlette.responses import HTMLResponse, Response

from thrifty import __version__
from thrifty.report.document import environment
from thrifty.report.figures import Figure
from thrifty.report.words import Pair, chinese, figure_words, words_of

PAGES = (("runs", "/", "Runs"), ("plan", "/plan", "Plan"), ("ledger", "/ledger", "Ledger"),
         ("studies", "/studies", "Studies"), ("served", "/served", "Served"))  # fmt: skip
_HTML, _CSS, _SCRIPT = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"
SCRIPTS = ("acts.js", "plots.js", "runs.js", "run.js", "report.js", "plan.js", "served.js")
# by name: the package and the file in it, and what it is; the look is that of a run's page
_ASSETS = {
    "report.css": ("thrifty.report", "page.css", _CSS),
    "ui.css": ("thrifty.web", "static/ui.css", _CSS),
    "plotly.js": ("plotly", "package_data/plotly.min.js", _SCRIPT),
    "language.js": ("thrifty.report", "language.js", _SCRIPT),
    **{name: ("thrifty.web", f"static/{name}", _SCRIPT) for name in SCRIPTS},
}  # fmt: skip
# what a script says stands in a call of `t`, with a name in braces for what varies
_SAID = re.compile(r'\bt\(\s*"((?:[^"\\]|\\.)*)"')


def page(
    template: str,
    *,
    here: str,
    title: str | Pair,
    status: int = 200,
    figures: Sequence[Figure] = (),
    **values: Any,
) -> Response:
    """Fill a template; it has both languages, and the browser shows that of its reader.

    Args:
        template: its file name.
        here: name of the page that is marked in the navigation; empty for none.
        title: of the page.
        status: of the answer.
        figures: that stand in the page.
        values: what the template shows.
    """
    english, other = title if isinstance(title, Pair) else (title, chinese(title))
    html = _environment().get_template(template).render(
        here=here, title=Pair(english, other), head=Pair(f"{english} · thrifty", f"{other} · thrifty"), pages=PAGES,
        version=__version__, figures=figures, figures_json=drawn(figures),
        words={**script_words(), **figure_words(drawn(figures))}, **values,
    )  # fmt: skip
    # a file name that is not UTF-8 comes in with lone surrogates, which no encoding takes
    return HTMLResponse(html.encode("utf-8", errors="replace"), status)


def asset(name: str) -> Response | None:
    """Return a file that pages load, or None where there is none of this name."""
    if name not in _ASSETS:
        return None
    content, kind = _file(name)
    # asked again each time, and for this session alone: an upgrade brings others
    return Response(content, headers={"content-type": kind, "cache-control": "max-age=600"})


def drawn(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Return figures as the page's script takes them."""
    return [each._asdict() for each in figures]


def texts_of(script: str) -> list[str]:
    """Return the texts that a script says.

    >>> texts_of('say(t("{count} chosen.", { count }), t("Go on"))')
    ['{count} chosen.', 'Go on']
    """
    return [text.replace('\\"', '"') for text in _SAID.findall(script)]


@cache
def script_words() -> dict[str, str]:
    """Return what the pages' scripts say, English to Chinese."""
    return words_of(text for name in SCRIPTS for text in texts_of(_file(name)[0].decode()))


@cache
def _file(name: str) -> tuple[bytes, str]:
    package, path, kind = _ASSETS[name]
    return files(package).joinpath(path).read_bytes(), kind


@cache
def _environment() -> Environment:
    return environment(ChoiceLoader([PackageLoader("thrifty.web", "pages"), PackageLoader("thrifty.report", "")]))
