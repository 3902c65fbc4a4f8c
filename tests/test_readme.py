"""What the README says is true: its commands exist and run, its job is a job, both languages say the same."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

import forked
from thrifty.spec import parse_job

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "README.zh-CN.md")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def commands(page: str) -> list[str]:
    lines = "".join(blocks(page, "sh")).splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def test_both_languages_give_the_same_commands_job_and_verbs() -> None:
    assert commands(PAGES[0]) == commands(PAGES[1])
    jobs = [yaml.safe_load(blocks(page, "yaml")[0]) for page in PAGES]
    assert jobs[0] == jobs[1]
    verbs = [re.findall(r"^\| `(\w+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE) for page in PAGES]
    assert verbs[0] == verbs[1]


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in commands("README.md"):
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


def test_the_job_is_a_job() -> None:
    (text,) = blocks("README.md", "yaml")
    job = parse_job(yaml.safe_load(text))
    assert job.budget.memory == 4 * 2**30


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert len(links) >= 3
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_tree_in_the_docs_is_the_tree() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    tree = text.split("```")[1]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines()[2:] if line.startswith("  ")}
    rooms = {path.name for path in (ROOT / "src" / "thrifty").iterdir() if not path.name.startswith(("__", "py.typed"))}
    assert named == rooms


@pytest.mark.slow
def test_the_commands_for_your_own_data_run(tmp_path: Path, digits: Path) -> None:
    shutil.copytree(digits, tmp_path / "photos")
    wanted = [shlex.split(command) for command in commands("README.md") if command.startswith("thrifty ")]
    assert [words[1] for words in wanted] == ["init", "plan", "run", "serve"]
    for words in wanted[:-1]:
        if words[1] == "plan":
            job = tmp_path / "job.yaml"
            job.write_text(job.read_text() + "train: {epochs: 1}\nplan: {precision: fp32, checkpointing: none}\n")
        done = forked.run(["-m", *words], tmp_path)
        assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", *wanted[-1], "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split()[-1]
            with urllib.request.urlopen(f"{url}/v1/models/photos", timeout=10) as reply:
                assert b'"AVAILABLE"' in reply.read()
        finally:
            server.terminate()
    assert server.returncode == 0
