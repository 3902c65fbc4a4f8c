"""The page of optimizers and schedules lists what there is, in the words of the code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thrifty.optim import OPTIMIZERS, SCHEDULES
from thrifty.optim.groups import RULES

PAGE = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")


def section(title: str) -> dict[str, str]:
    text = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))


@pytest.mark.parametrize(("title", "table"), [("Optimizers", OPTIMIZERS), ("Schedules", SCHEDULES)])
def test_each_has_its_line(title: str, table: dict[str, Callable[..., Any]]) -> None:
    first_lines = {name: str(made.__doc__).partition("\n")[0] for name, made in table.items()}
    assert section(title) == first_lines


def test_each_kind_of_parameter_has_its_line() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (yes|no) \| (AdamW|themselves) \|$", PAGE, re.MULTILINE)
    assert {kind: (decays == "yes", who == "themselves") for kind, decays, who in rows} == {
        kind: (rule.decays, rule.hidden) for kind, rule in RULES.items()
    }
