"""What the README says is true: its commands exist and run, its job is a job, both languages say the same."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent / "data"))
from data_folders import reviews, write_tables

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


def prose(page: str) -> str:
    return re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


# what both languages say alike: how deep headings are, blocks, pictures, places, numbers, names of files and commands
ALIKE = {
    "headings": r"^(#+) ",
    "pictures": r"!\[[^\]]*\]\(([^)]+)\)",
    "figures": r"\d+(?:[.,]\d+)*",
    "names": r"`([^`]+)`",
}


@pytest.mark.parametrize("what", ALIKE)
def test_both_languages_agree(what: str) -> None:
    english, chinese = (Counter(re.findall(ALIKE[what], prose(page), re.MULTILINE)) for page in PAGES)
    assert english and english == chinese


def test_both_languages_have_the_same_blocks_and_links() -> None:
    fences = [re.findall(r"^```(.*)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE) for page in PAGES]
    assert fences[0] == fences[1]
    links = [Counter(re.findall(r"\]\(([^)]+)\)", prose(page))) for page in PAGES]
    # each leads to the other
    assert links[0] - links[1] == Counter({PAGES[1]: 1}) and links[1] - links[0] == Counter({PAGES[0]: 1})


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


@dataclass(frozen=True)
class Walk:
    """A way through the README's commands.

    Attributes:
        name: of the folder of data, in the place of the README's photos.
        job: what is said beside the starter job, so that it is quick: one way to train, for a few steps.
        raw: of what is asked at the end, by its path or as it is.
        says: the key of `thrifty predict --json` that holds the answer.
        budget: of the search; in the least nothing is tried, and the bundle is the model as trained.
    """

    name: str
    job: dict[str, Any]
    raw: str
    says: str
    budget: str = "6s"


PLAN = {"precision": "fp32", "checkpointing": "none", "compile": "none"}
WALKS = {
    "image": Walk(
        "photos", {"model": "mlp-small", "train": {"epochs": 1}, "plan": PLAN}, "photos/3/0003.png", "label", "12s"
    ),
    "text": Walk("reviews", {"train": {"epochs": 2}, "plan": PLAN}, "the film was goodly music", "label"),
    "language": Walk(
        "library",
        {"data": {"length": 32, "vocabulary": 300}, "train": {"steps": 6, "batch": 8}, "plan": PLAN},
        "import json",
        "completion",
    ),
}


def write_data(kind: str, folder: Path, digits: Path, sources: Path) -> None:
    if kind == "image":
        shutil.copytree(digits, folder)
    elif kind == "language":
        shutil.copytree(sources / "json", folder / "json")
        shutil.copytree(sources / "html", folder / "html")
    else:
        write_tables(folder, {f"{part}.tsv": reviews(*drawn) for part, drawn in PARTS.items()})


PARTS = {"train": (300, 0), "dev": (80, 1), "test": (80, 2)}


def ask(url: str, name: str, kind: str, raw: bytes) -> str:
    """Ask by a protocol of the kind: an image as its bytes, a text as one, a prompt whose continuation is streamed."""
    if kind == "image":
        headers = {"Inference-Header-Content-Length": "0"}
        reply, body = post(f"{url}/v2/models/{name}/infer", raw, headers)
        outputs = json.loads(body[: int(reply["Inference-Header-Content-Length"])])["outputs"]
        assert [each["name"] for each in outputs] == ["probabilities", "label"]
        return body[-int(outputs[1]["parameters"]["binary_data_size"]) + 4 :].decode()
    if kind == "text":
        _, body = post(f"{url}/v1/models/{name}:predict", json.dumps({"instances": [raw.decode()]}).encode(), {})
        return str(json.loads(body)["predictions"][0]["label"])
    asked = {"model": name, "prompt": raw.decode(), "max_tokens": 8, "stream": True}
    reply, body = post(f"{url}/v1/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"})
    assert reply["Content-Type"].startswith("text/event-stream")
    *chunks, last = [line.removeprefix("data: ") for line in body.decode().splitlines() if line]
    assert last == "[DONE]"
    return "".join(json.loads(chunk)["choices"][0]["text"] for chunk in chunks)


def post(url: str, body: bytes, headers: dict[str, str]) -> tuple[Any, bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers), timeout=30) as reply:
        return reply.headers, reply.read()


@pytest.mark.slow
@pytest.mark.parametrize("kind", WALKS)
def test_the_commands_for_your_own_data_run(kind: str, tmp_path: Path, digits: Path, sources: Path) -> None:
    walk = WALKS[kind]
    write_data(kind, tmp_path / walk.name, digits, sources)
    lines = [command.replace("photos", walk.name) for command in commands("README.md")]
    wanted = [shlex.split(line) for line in lines if line.startswith("thrifty ")]
    assert [words[1] for words in wanted] == ["init", "plan", "run", "compress", "export", "serve"]
    said = {}
    for words in wanted[:-1]:
        # few rows prove no small drop, and minutes are not to be spent on finding one
        more = ["--max-drop", "40%", "--budget", walk.budget] if words[1] == "compress" else []
        if words[1] == "plan":
            if kind != "image":
                continue  # the same for all
            write_job(tmp_path / "job.yaml", walk.job)
        if words[1] == "run":
            write_job(tmp_path / "job.yaml", walk.job)
        done = forked.run(["-m", *words, *more], tmp_path)
        assert done.returncode == 0, (words, done.stderr, done.stdout)
        said[words[1]] = done.stdout
    # each tells what comes next
    run, made = f"runs/{walk.name}", f"runs/{walk.name}/compressed"
    assert f"thrifty compress {run}" in said["run"] and f"thrifty serve {run}" in said["run"]
    assert f"thrifty serve {made}" in said["compress"] and f"thrifty export {made} --to" in said["compress"]
    assert f"onnxruntime.InferenceSession('{run}/export/onnx/model.onnx')" in said["export"]

    if kind == "image":
        again = next(line for line in said["compress"].splitlines() if f"thrifty export {made}" in line)
        done = forked.run(["-m", *shlex.split(again[again.index("thrifty") :])], tmp_path)
        assert done.returncode == 0, done.stderr
    predicted = forked.run(["-m", "thrifty", "predict", made, walk.raw, "--json"], tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    expected = json.loads(predicted.stdout)[walk.says]

    command = [sys.executable, "-m", *wanted[-1], "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().split()[-1]
            assert server.stdout.readline().startswith(f"ask it: curl {url}/v1/models/{walk.name}:predict -d ")
            raw = (tmp_path / walk.raw).read_bytes() if kind == "image" else walk.raw.encode()
            answer = ask(url, walk.name, kind, raw)
            assert answer == expected if walk.says == "label" else answer
        finally:
            server.terminate()
    assert server.returncode == 0


def write_job(path: Path, more: dict[str, Any]) -> None:
    job = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**job, **more, "data": job["data"] | more.get("data", {})}))
