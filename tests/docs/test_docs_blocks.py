"""Every block of code of the READMEs and the documents is run, or says why not; what is not run is parsed."""

from __future__ import annotations

import ast
import functools
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from blocks import MARKS, ROOT, SHELLS, Block, PageError, begin_words, blocks_of, pages, reasons, run_page

import forked
from thrifty.cli import app
from thrifty.hardware.chip import read_chip
from thrifty.hardware.places import KEYS as PLACE_KEYS
from thrifty.spec import Job, parse_job

PAGES = pages()
RUN = [page for page in PAGES if any(block.is_run for block in blocks_of(page))]
# what a job has that a page shows a part of
A_JOB: dict[str, Any] = {"name": "page", "data": {"kind": "image", "path": "photos"}, "model": "resnet8"}
CHIP_KEYS = {"like", "flops"}


def check_job(values: dict[str, Any]) -> None:
    """A whole job, or a part of one; what a key of a machine's file says is a machine, or a place."""
    assert parse_job({**A_JOB, **values}).name


def check_yaml(block: Block, folder: Path) -> None:
    values = yaml.safe_load(block.text)
    if isinstance(values, dict) and values.keys() & CHIP_KEYS:
        path = folder / "chip.yaml"
        path.write_text(block.text, encoding="utf-8")
        assert read_chip(path).texts["name"]
    elif isinstance(values, dict) and values.keys() <= set(PLACE_KEYS):
        assert values["pue"] > 1 and str(values["grid"]).endswith("kg/kWh")
    elif isinstance(values, dict) and values.keys() <= set(Job.model_fields):
        check_job(values)
    else:
        assert "not run" in block.marks, f"{block.place} is no job and no machine, and nothing says what it is"


def check_shell(block: Block) -> None:
    done = subprocess.run(["bash", "-n", "-c", block.commands], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.place}: {done.stderr}"
    for line in block.commands.replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("time ")
        words = shlex.split(line, comments=True) if line.startswith("thrifty ") else []
        check_command([word for word in words if word != "&"], block.place)


@functools.cache
def verbs() -> dict[str, Any]:
    """The command line's, by name."""
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def check_command(words: list[str], place: str) -> None:
    """What is typed is taken by the command line: the verb, its options, its arguments."""
    if not words or words[1] == "--help":
        return
    assert words[1] in verbs(), f"{place}: there is no {shlex.join(words[:2])}"
    end = next((at for at, word in enumerate(words) if word in {">", "|", "&&", ";"}), None)
    try:
        verbs()[words[1]].make_context(words[1], words[2:end])
    except typer.Exit:
        pass
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        pytest.fail(f"{place}: {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str, tmp_path: Path) -> None:
    for block in blocks_of(page):
        assert not block.is_unnamed_command, f"{block.place} holds commands: begin it with ```sh"
        assert len(block.marks.keys() & {"not run", "run by"}) <= 1, block.place
        if "not run" in block.marks:
            assert len(block.marks["not run"].split()) >= 3, f"{block.place}: why is it not run?"
        if "run by" in block.marks:
            for test in block.marks["run by"].split(", "):
                assert (ROOT / test).is_file(), f"{block.place}: there is no {test}"
        if block.language in SHELLS:
            check_shell(block)
        elif block.language == "python":
            ast.parse(block.text, block.place)
        elif block.language == "json":
            json.loads(block.text)
        elif block.language == "yaml":
            check_yaml(block, tmp_path)
    # shown by pytest -rP
    print("\n".join(reasons([page])))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_run(page: str, tmp_path: Path) -> None:
    blocks = blocks_of(page)
    said = {each.block.line: each.out + each.errors for each in run_page(blocks, tmp_path, forked.copier())}
    # what is shown of an output is what was said; of a smaller job, or of less, there are fewer and other lines
    last: Block | None = None
    smaller = False
    for block in blocks:
        smaller = smaller or (block.is_file and "tested with" in block.marks)
        if block.is_output and last is not None:
            words = begin_words(block.text)
            words = [words[0], words[-1]] if smaller or "tested with" in last.marks else words
            missing = [word for word in words if word not in said[last.line]]
            assert not missing, f"{block.place} shows {missing}, which {last.place} did not say:\n{said[last.line]}"
        elif block.is_run:
            last = block
        elif block.is_checked and not block.is_file:
            last = None


PAGE = """
```sh
value=3
sleep 60 &
echo $! > sleeping
echo "it said $value"
```
```text
it said 3
…
```
<!-- tested with: 2, for: 200 -->
```python title="two.py"
print(200)
```
```sh
test "$(python two.py)" = 2
```
<!-- ends with: 7 -->
```sh
(exit 7)
```
<!-- not run: it would never end -->
```sh
sleep 1000000
```
```json
{"is": "text"}
```
"""


def made(text: str) -> list[Block]:
    return blocks_of("made.md", text)


def test_a_page_is_run_in_one_shell_and_what_it_left_behind_is_ended(tmp_path: Path) -> None:
    first, *_ = run_page(made(PAGE), tmp_path)
    assert first.out == "it said 3\n"
    sleeping = Path("/proc") / (tmp_path / "sleeping").read_text().strip()
    for _ in range(100):
        if not sleeping.exists():
            break
        time.sleep(0.02)
    assert not sleeping.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```sh\nfalse\necho on\n```\n", "made.md:1 ended with 1"),
        ("```sh\necho before\n```\n\n```python\nraise SystemExit(4)\n```\n", "made.md:5 ended with 1"),
        ("<!-- ends with: 3 -->\n```sh\ntrue\n```\n", "otherwise than with 3"),
    ],
    ids=["command", "python", "code"],
)
def test_a_block_that_fails_is_told(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(PageError, match=told):
        run_page(made(text), tmp_path)


def test_marks_are_of_the_block_that_follows() -> None:
    blocks = made(
        "<!-- not run: it needs a GPU -->\n\n```sh\nx\n```\n```sh\ny\n```\n<!-- not run: no -->\ntext\n```sh\nz\n```\n"
    )
    assert [block.marks for block in blocks] == [{"not run": "it needs a GPU"}, {}, {}]
    assert [block.is_run for block in blocks] == [False, True, True]
    assert "not run" in MARKS and not made("```text\nx\n```")[0].is_run


def test_commands_without_a_language_are_seen() -> None:
    assert made("```\nthrifty run job.yaml\n```")[0].is_unnamed_command
    assert not made("```\nruns/\n```")[0].is_unnamed_command


@pytest.mark.parametrize("line", ["thrifty runn job.yaml", "thrifty plan job.yaml --om h100:8", "thrifty compress"])
def test_a_command_that_is_none_is_seen(line: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_shell(made(f"```sh\n{line}\n```")[0])


def test_what_is_shown_begins_with_words_that_were_said() -> None:
    assert begin_words("the bill\n  stage   time\n…\n… more\n  3.1 s\n▸ fp32") == ["the", "stage"]
