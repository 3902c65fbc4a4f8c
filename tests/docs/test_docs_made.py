"""What is made for the site beside what is written: every key, verb, benchmark and move, and links that lead there."""

from __future__ import annotations

import doctest
import importlib
import json
import re
from pathlib import Path
from typing import Any

import fields
import figures
import links
import pytest
import verbs
from typer.main import get_command

from thrifty.cli import app
from thrifty.names import named_schema

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "benchmarks" / "reports"


def test_every_key_of_a_job_has_its_row() -> None:
    schema = named_schema()
    page = fields.job_fields(schema)
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    by_anchor = {re.search(r"\{ #(\w+) \}", text)[1]: text for text in sections}  # type: ignore[index]
    wanted = {"job": schema, **{name.lower(): each for name, each in schema["$defs"].items()}}
    assert set(by_anchor) == set(wanted)
    for anchor, section in wanted.items():
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*?) \| (.+) \|$", by_anchor[anchor], re.MULTILINE)
        assert [row[0] for row in rows] == list(section["properties"]), anchor
    assert "| `size` | whole number, 4 to 1,024 |" in by_anchor["imagedata"]
    assert "| `max_file_bytes` | amount such as `4GiB` | `64MiB` |" in by_anchor["imagedata"]
    assert "| `name` | text | **must be given** |" in by_anchor["job"]
    for anchor in re.findall(r"\]\(#(\w+)\)", page):
        assert anchor in by_anchor


TAKES = [
    ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "number, above 0, below 1"),
    ({"type": "integer", "minimum": 0}, "whole number, 0 or more"),
    ({"type": "boolean"}, "`true`, `false`"),
    ({"type": "array", "items": {"type": "string"}}, "list of text"),
    ({"type": "object", "additionalProperties": {"type": "number"}}, "mapping to number"),
    ({"anyOf": [{"const": "full"}, {"$ref": "#/$defs/Split"}]}, "`full` or [Split](#split)"),
    ({"enum": [str(n) for n in range(99)]}, "one of 99 names"),
]


@pytest.mark.parametrize(("about", "said"), TAKES, ids=[said for _, said in TAKES])
def test_what_a_key_takes_is_said(about: dict[str, Any], said: str) -> None:
    assert fields.takes(about) == said


def test_every_verb_has_its_options() -> None:
    page = verbs.all_verbs()
    commands = getattr(get_command(app), "commands", {})
    assert re.findall(r"^## `thrifty ([\w-]+)", page, re.MULTILINE) == list(commands)
    for name, section in zip(commands, re.split(r"^## ", page, flags=re.MULTILINE)[1:], strict=True):
        shown = [each for each in commands[name].params if not getattr(each, "hidden", False)]
        assert section.count("\n| `") == len(shown), name
        for each in shown:
            if each.param_type_name == "option":
                assert f"`{', '.join([*each.opts, *each.secondary_opts])}`" in section
    assert "| `JOB` | path | **must be given** | a job file |" in page
    assert "| `--top` | whole number | `4` | rows at most |" in page


def write_report(folder: Path, name: str, date: str, samples: dict[str, list[float]], says: str = "It asks.") -> None:
    device = {"name": "Chip", "kind": "cpu", "cores": 2}
    facts = {"benchmark": name, "date": date, "device": device, "stack": "Python 3", "samples": samples}
    path = folder / f"{name}-chip-2-cores-{date}.md"
    table = "| figure | median | least | most | runs |\n|---|---:|---:|---:|---:|\n| a | 1 | 1 | 1 | 1 |"
    path.write_text(f"# {name}, {date}\n\nChip, 2 cores. Python 3.\n\n{says}\n\n{table}\n", encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")


def test_the_newest_report_of_each_machine_is_shown_with_its_spread(tmp_path: Path) -> None:
    write_report(
        tmp_path, "speed", "2026-01-02", {"rate": [1.0, 3.0, 20_000.0]}, "How fast? It runs.\n\n## Lost\n\n- x"
    )
    write_report(tmp_path, "speed", "2025-12-31", {"rate": [9.0]}, "Old.")
    write_report(tmp_path, "speed_quick", "2026-02-01", {"rate": [2.0]})
    (tmp_path / "alone-2026-01-01.md").write_text("# alone, 2026-01-01\n\nWords.\n\n| a |\n|---|\n| 1 |\n")
    found = figures.newest(tmp_path)
    assert [(each.benchmark, each.quick, each.date) for each in found] == [
        ("alone", False, "2026-01-01"), ("speed", False, "2026-01-02"), ("speed", True, "2026-02-01")
    ]  # fmt: skip
    pages = figures.pages(found)
    assert set(pages) == {"alone", "speed"}
    assert "| `rate` | 3 | 1 | 20,000 | 3 |" in pages["speed"]
    assert "Old." not in pages["speed"]
    assert pages["speed"].index("## Chip, 2 cores, 2026-01-02\n") < pages["speed"].index(
        "2026-02-01, quick\n\n!!! warning"
    )
    # headings of a report stand under that of its machine, and its own table is not shown twice
    assert "### Lost" in pages["speed"]
    assert "| a | 1 |" not in pages["speed"]
    assert "| 1 |" in pages["alone"]
    rows = figures.index(found).splitlines()[2:]
    assert rows[0] == "| [`alone`](benchmarks/alone.md) | Words. | 2026-01-01 |"
    measured = "Chip, 2 cores, 2026-01-02, 3 runs<br>Chip, 2 cores, 2026-02-01, one run, **quick**"
    assert rows[1:] == [f"| [`speed`](benchmarks/speed.md) | How fast? It runs. | {measured} |"]


def test_every_report_can_be_read() -> None:
    found = figures.newest(REPORTS)
    assert len(found) >= 50
    assert all(each.asks and each.says for each in found)
    assert sum(bool(each.samples) for each in found) >= 45
    assert all(each.machine and each.stack for each in found if each.samples)
    pages = figures.pages(found)
    for each in found:
        assert each.date in pages[each.benchmark]
        assert all(f"| `{name}` |" in pages[each.benchmark] for name in each.samples)


PAGE = "docs/how-to/a.md"
LEADS = [
    ("[x](../data.md#what-is-not-there)", "[x](../data.md#what-is-not-there)"),
    ("[x](../../examples/sst2.yaml)", "[x](../examples/sst2.yaml)"),
    ("[x](../../README.md)", "[x](../index.md)"),
    ("![x](../report.png)", "![x](../report.png)"),
    ("[x](../../benchmarks/reports/a.md)", "[x](../benchmarks.md)"),
    ("[x](https://example.org/a)", "[x](https://example.org/a)"),
    ("[x](#here)", "[x](#here)"),
    ("[x](../../src/thrifty/cli/app.py)", "[x](../../src/thrifty/cli/app.py)"),
    ("Rules:\n- a\n  more\n- b", "Rules:\n\n- a\n  more\n- b"),
    ("- a\nmore of it\n- b", "- a\nmore of it\n- b"),
    ("## T\n- a", "## T\n- a"),
    ("First:\n1. a\n2. b", "First:\n\n1. a\n2. b"),
    ("A sum,\n- 1 less", "A sum,\n\n- 1 less"),
    ("Bytes:\n| a |\n|---|\n| 1 |", "Bytes:\n\n| a |\n|---|\n| 1 |"),
    ("In\n```sh\nRun\n- a\n[x](../../README.md)\n```\nout", "In\n\n```sh\nRun\n- a\n[x](../../README.md)\n```\n\nout"),
    ("- a\n\n    ```sh\n    Run\n    ```\n", "- a\n\n    ```sh\n    Run\n    ```\n"),
]


@pytest.mark.parametrize(("written", "read"), LEADS, ids=[written for written, _ in LEADS])
def test_a_page_of_the_repository_becomes_one_of_the_site(written: str, read: str) -> None:
    assert links.as_page(written, PAGE, "how-to/a.md") == read


def test_the_readme_leads_into_the_site() -> None:
    text = links.as_page("[d](docs/data.md) ![r](docs/report.png) [z](README.zh-CN.md)", "README.md", "index.md")
    assert text == "[d](data.md) ![r](report.png) [z](zh.md)"


def module_of(name: str) -> Any:
    pytest.importorskip("mkdocstrings", reason="MkDocs is not installed: pip install -e '.[docs]' -c constraints.txt")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["docstrings", "fields", "figures", "links", "site_build"])
def test_the_examples_of_what_makes_pages_hold(name: str) -> None:
    ran = doctest.testmod(module_of(name))
    assert ran.attempted and not ran.failed


def test_the_list_of_pages_takes_folders(tmp_path: Path) -> None:
    site_build = module_of("site_build")
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for page in ("b.md", "a/x.md", "a/y.md", "a/z.md", "a/deep/w.md"):
        (tmp_path / page).write_text("")
    (tmp_path / "a" / "index.md").write_text(
        "First [y](y.md), not [b](../b.md), then [x](x.md); [y](y.md); [none](q.md)."
    )
    listed = site_build.spread_out([{"A": "a/*"}, "b.md"], site_build.in_order(tmp_path))
    assert listed == [{"A": ["a/index.md", "a/y.md", "a/x.md", "a/z.md"]}, "b.md"]


def test_examples_of_docstrings_are_code() -> None:
    docstrings = module_of("docstrings")
    assert docstrings.fenced("Says.\n>>> 1\n1") == "Says.\n\n```pycon\n>>> 1\n1\n```"
    assert docstrings.fenced("None here.") == "None here."
    twice = docstrings.fenced(">>> 1\n1\n\nAnd:\n\n>>> 2\n2\n\nEnd.")
    assert (
        docstrings.apart("Args:\n    a, b: x\n        y\n    c: z")
        == "Args:\n    a: x\n        y\n    b: x\n        y\n    c: z"
    )
    assert twice == "```pycon\n>>> 1\n1\n```\n\nAnd:\n\n```pycon\n>>> 2\n2\n```\n\nEnd."


MOVES_PAGE = (ROOT / "docs" / "moves.md").read_text(encoding="utf-8")


def moves_shown() -> set[str]:
    cells = re.findall(r"^\| (.+?) \|", MOVES_PAGE, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_every_move_of_the_planner_has_its_line() -> None:
    from thrifty.planner.moves import DEGREES, MOVES, WORDS

    wanted = {move.name for move in MOVES} | {WORDS.get(name, name) for name in DEGREES}
    assert wanted <= moves_shown()
    marked = set(re.findall(r"`([^`]+)` \*learns otherwise\*", MOVES_PAGE))
    assert marked == {move.name for move in MOVES if move.changes_learning}


@pytest.mark.slow
def test_every_move_of_compression_has_its_line() -> None:
    from thrifty.compress.moves import MOVES as COMPRESSING

    assert set(COMPRESSING) <= moves_shown()
