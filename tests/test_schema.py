"""`thrifty schema`: what the page of job files tells to do gives an editor the schema of this installation."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thrifty import api
from thrifty.cli import app
from thrifty.errors import StorageError

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "job.md"


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["schema", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_command_of_the_page_writes_what_its_job_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    (command,) = re.findall(r"^```sh\n(.+)\n```", text, re.MULTILINE)
    (line,) = re.findall(r"^# yaml-language-server: \$schema=\S+$", text, re.MULTILINE)
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("thrifty", "schema")
    assert line in printed(*arguments)
    assert json.loads(Path(line.partition("=")[2]).read_text(encoding="utf-8")) == api.schema()


def test_it_is_printed_without_a_file(tmp_path: Path) -> None:
    assert json.loads(printed()) == json.loads(printed("--json")) == api.schema()
    file = tmp_path / "a.json"
    assert json.loads(printed("--output", str(file), "--json")) == {"schema": str(file)}


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"taken/a\.json"):
        printed("--output", str(tmp_path / "taken" / "a.json"))
