"""A template filled as a page of the site; whatever stands in it is escaped."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from thrifty import __version__
from thrifty.report.figures import Figure

PAGES = (("runs", "/", "Runs"), ("plan", "/plan", "Plan"), ("ledger", "/ledger", "Ledger"),
         ("studies", "/studies", "Studies"), ("served", "/served", "Served"))  # fmt: skip
_HTML, _CSS, _SCRIPT = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"
# by name: the package and the file in it, and what it is; the look is that of a run's page
_ASSETS = {
    "report.css": ("thrifty.report", "page.css", _CSS),
    "ui.css": ("thrifty.web", "static/ui.css", _CSS),
    "plotly.js": ("plotly", "package_data/plotly.min.js", _SCRIPT),
    **{name: ("thrifty.web", f"static/{name}", _SCRIPT) for name in ("acts.js", "plots.js", "runs.js", "run.js",
                                                                     "plan.js", "served.js")},
}  # fmt: skip


def page(template: str, *, here: str, title: str, status: int = 200, **values: Any) -> Response:
    """Fill a template.

    Args:
        template: its file name.
        here: name of the page that is marked in the navigation; empty for none.
        title: of the page.
        status: of the answer.
        values: what the template shows.
    """
    html = _environment().get_template(template).render(
        here=here, title=title, pages=PAGES, version=__version__, **values
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


def drawn(figures: list[Figure]) -> list[dict[str, Any]]:
    """Return figures as the page's script takes them."""
    return [each._asdict() for each in figures]


@cache
def _file(name: str) -> tuple[bytes, str]:
    package, path, kind = _ASSETS[name]
    return files(package).joinpath(path).read_bytes(), kind


@cache
def _environment() -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader("thrifty.web", "pages"), PackageLoader("thrifty.report", "")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
