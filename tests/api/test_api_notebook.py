"""A notebook's cell that ends in what a verb returned shows it, and the nouns themselves stay plain."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from thrifty.api.notebook import CELLS, html_of, register, show
from thrifty.errors import JobError
from thrifty.ledger import Entry
from thrifty.spec import Spent


def line(**changes: Any) -> Entry:
    entry = Entry(
        id=1, name="digits", key="a", folder="/runs/digits", status="done", started="2026-11-01T00:00:00Z",
        finished="", attempts=1, pid=1, stages=(), predicted=None, total=Spent(wall_s=61.0), metrics={}, reason="",
        code="c", device="cpu",
    )  # fmt: skip
    return entry.model_copy(update=changes)


class Formatter:
    """Keeps what IPython's would be told."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, str], Any] = {}

    def for_type_by_name(self, module: str, name: str, function: Any) -> None:
        self.told[module, name] = function


@pytest.mark.slow
def test_the_types_are_where_they_are_said_to_be() -> None:
    import importlib

    for module, name in CELLS:
        assert isinstance(getattr(importlib.import_module(module), name), type)


def test_show_wraps_what_is_returned() -> None:
    shown = show(line())
    assert "1m 01s" in shown._repr_html_() and shown._repr_html_() == html_of(line())
    assert repr(shown) == repr(line()) and not hasattr(line(), "_repr_html_")
    with pytest.raises(JobError, match="a int cannot be shown"):
        show(3)


def test_a_running_ipython_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    formatter, stand_in = Formatter(), ModuleType("IPython")
    shell = SimpleNamespace(display_formatter=SimpleNamespace(formatters={"text/html": formatter}))
    monkeypatch.setitem(sys.modules, "IPython", stand_in)
    stand_in.get_ipython = lambda: None  # type: ignore[attr-defined]
    assert not register() and not formatter.told
    stand_in.get_ipython = lambda: shell  # type: ignore[attr-defined]
    assert register() and formatter.told == CELLS


def test_without_ipython_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not register() and "IPython" not in sys.modules


@pytest.mark.slow
def test_a_real_ipython_shows_html(tmp_path: Path) -> None:
    pytest.importorskip("IPython", reason="IPython is in no extra: the test needs it installed")
    import subprocess

    code = (
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "shell.run_cell('from thrifty import api')\n"
        f"shell.run_cell({('import sys; sys.path.insert(0, ' + repr(str(Path(__file__).parent)) + ')')!r})\n"
        "found = shell.run_cell('from test_api_notebook import line; line()').result\n"
        "data, _ = shell.display_formatter.format(found)\n"
        "print(data['text/html'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert '<div class="thrifty-cell">' in done.stdout and "1m 01s" in done.stdout


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_lays_it_out(tmp_path: Path, chromium: Any) -> None:
    file = tmp_path / "cell.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><body>{html_of(line(reason='<b>x'))}</body>", encoding="utf-8")
    page = chromium.new_page(viewport={"width": 700, "height": 600})
    page.goto(file.as_uri())
    assert page.inner_text(".thrifty-cell strong") == "digits: done"
    assert page.inner_text("dd") == "<b>x" and page.locator("td").first.is_visible()
    page.close()
