"""The command line as a user meets it: the whole way, the second run, and what each mistake is told."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

import forked

JOB: dict[str, Any] = {
    "name": "digits",
    "data": {"kind": "image", "path": "digits"},
    "model": "mlp-small",
    "train": {"epochs": 2, "batch": 32},
    # one way to price: planning is most of a small run
    "plan": {"precision": "fp32", "memory_format": "contiguous", "checkpointing": "none", "compile": "none"},
}
RESNET = {**JOB, "model": "resnet8", "plan": {}}


def thrifty(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return forked.run(["-m", "thrifty", *map(str, arguments)], cwd)


def thrifty_from_the_start(
    *arguments: object, file_bytes: int | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """With an interpreter and imports of its own, which are part of its time and its memory.

    A shell sets what a file may hold: this process has threads by now, and what is forked from them may not run Python.
    """
    command = [sys.executable, "-m", "thrifty", *map(str, arguments)]
    if file_bytes is not None:
        command = ["sh", "-c", f'ulimit -f {file_bytes // 512} && exec "$@"', "sh", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **options)


def children_s() -> float:
    """Processor seconds of processes that have ended: what others take of the machine meanwhile does not count."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


@pytest.fixture
def workplace(tmp_path: Path, digits: Path) -> Path:
    """A folder with a job and a copy of the digits that a test may spoil."""
    shutil.copytree(digits, tmp_path / "digits")
    write(tmp_path, JOB)
    return tmp_path


def write(folder: Path, job: dict[str, Any]) -> None:
    (folder / "job.yaml").write_text(yaml.safe_dump(job))


def changed(**values: Any) -> dict[str, Any]:
    return {**JOB, **values}


@pytest.mark.alone
def test_help_fits_a_screen_and_is_quick() -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = thrifty_from_the_start("--help")
        times.append(time.perf_counter() - began)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 24
    assert min(times) < 0.5


@pytest.mark.slow
def test_every_verb_has_help() -> None:
    verbs = [line.split()[0] for line in thrifty("--help").stdout.split("Commands:")[1].strip().splitlines()]
    assert {"init", "hardware", "plan", "run", "tune", "export", "predict", "serve", "report", "ledger"} <= set(verbs)
    for verb in verbs:
        done = thrifty(verb, "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) <= 24, verb


@pytest.mark.slow
def test_the_whole_way(workplace: Path) -> None:
    write(workplace, RESNET)
    first = thrifty_from_the_start("run", "job.yaml", "--json", cwd=workplace)
    assert first.returncode == 0, first.stderr
    outcome = json.loads(first.stdout)
    assert outcome["fresh"]
    assert outcome["result"]["steps"] == 2 * 9
    stages = [stage["stage"] for stage in outcome["bill"]["stages"]]
    assert stages == ["prepare", "plan", "build", "initialise", "train", "validate", "bundle"]
    for stage in outcome["bill"]["stages"]:
        assert stage["spent"]["wall_s"] > 0
        assert stage["spent"]["joules_method"]
        assert stage["spent"]["usd_method"]
    assert outcome["bill"]["total"]["peak_rss_bytes"] > 150 * 2**20, "torch is part of what the run takes"

    before_s = children_s()
    second = thrifty_from_the_start("run", "job.yaml", cwd=workplace)
    assert children_s() - before_s < 3
    assert second.returncode == 0
    assert "prepared nothing, trained nothing" in second.stdout

    image = next((workplace / "digits" / "3").glob("*.png"))
    said = json.loads(thrifty("predict", "runs/digits", image, "--json", cwd=workplace).stdout)
    assert said["label"] in set("0123456789")

    page = thrifty("report", "runs/digits", cwd=workplace)
    assert (workplace / page.stdout.strip()).stat().st_size > 100_000
    lines = json.loads(thrifty("ledger", "--json", cwd=workplace).stdout)
    assert [line["name"] for line in lines] == ["digits"]

    exported = json.loads(thrifty("export", "runs/digits", "--to", "onnx", "--json", cwd=workplace).stdout)
    assert exported["onnx"]["max_difference"] < 1e-4

    write(workplace, changed(train={"epochs": 1, "batch": 32}))
    third = json.loads(thrifty("run", "job.yaml", "--json", cwd=workplace).stdout)
    assert third["fresh"]
    assert third["folder"] == "runs/digits-2", "another job must not touch the first one's folder"


@pytest.mark.slow
def test_a_run_that_diverged_leaves_a_page_that_says_how(workplace: Path) -> None:
    write(workplace, changed(train={"epochs": 1, "batch": 16, "optimizer": "sgd", "learning_rate": 1e30}))
    done = thrifty("run", "job.yaml", cwd=workplace)
    assert done.returncode != 0 and "training diverged" in done.stderr.splitlines()[-1]
    assert "what happened until then is in runs/digits/report.html" in done.stderr
    page = (workplace / "runs/digits/report.html").read_text(encoding="utf-8")
    body = page[: page.index('<script type="application/json"')]
    skipped = (workplace / "runs/digits/events.jsonl").read_text().count('"event": "Skipped"')
    assert skipped >= 6
    for said in ("no result", "failed", f"{skipped} steps were skipped", "rate was lowered", "wasted", "as planned:"):
        assert said in body, said
    (workplace / "runs/digits/report.html").unlink()
    anew = thrifty("report", "runs/digits", cwd=workplace)
    assert anew.returncode == 0 and (workplace / anew.stdout.strip()).is_file()


@pytest.mark.slow
def test_tune_finds_at_least_the_start(workplace: Path) -> None:
    done = thrifty("tune", "job.yaml", "--budget", "20min", "--trials", "3", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    tuned = json.loads(done.stdout)
    trials = tuned["search"]["trials"]
    assert len(trials) == 3
    best = trials[tuned["search"]["best"]]["value"]
    assert best == max(trial["value"] for trial in trials)
    assert best >= trials[0]["value"]
    again = thrifty("run", tuned["best_job"], "--json", cwd=workplace)
    assert again.returncode == 0, again.stderr

    write(workplace, changed(train={"epochs": 1, "batch": 16}))
    other = thrifty("tune", "job.yaml", "--budget", "20min", "--trials", "1", "--json", cwd=workplace)
    assert other.returncode == 0, other.stderr
    assert [trial["settings"]["batch"] for trial in json.loads(other.stdout)["search"]["trials"]] == [16], (
        "a search of another job starts anew"
    )


def spoil(change: Callable[[Path], object]) -> Callable[[Path], dict[str, Any]]:
    def apply(folder: Path) -> dict[str, Any]:
        change(folder)
        return JOB

    return apply


def no_class(folder: Path) -> None:
    shutil.rmtree(folder / "digits" / "4")
    (folder / "digits" / "4").mkdir()


def one_class(folder: Path) -> None:
    for label in set("0123456789") - {"3"}:
        shutil.rmtree(folder / "digits" / label)


GPT: dict[str, Any] = {
    "name": "text",
    "data": {"kind": "language", "tokens": 10**8, "vocabulary": 51200, "length": 1024},
    "model": "gpt2",
    "train": {"batch": 32},
}
EXAMPLES = Path(__file__).parents[1] / "examples"
CHIP = "like: h100\nflops: {bf16: 2000 TFLOP/s}\nbandwidth: 6 TB/s\nprice: 4.00 USD/h\n"


@pytest.mark.slow
def test_a_plan_here_says_what_each_way_takes_and_writes_a_page(workplace: Path) -> None:
    write(workplace, RESNET)
    done = thrifty("plan", "job.yaml", "--html", "plan.html", cwd=workplace)
    assert done.returncode == 0, done.stderr
    for said in ("▸", "why this one", "where time goes", "your limits", "as most people run it", "nothing ran"):
        assert said in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    page = (workplace / "plan.html").read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;" in page
    said = json.loads(thrifty("plan", "job.yaml", "--json", "--probe", cwd=workplace).stdout)
    assert said["plan"]["precision"] in {"fp32", "bf16"}
    assert said["offers"][0]["mark"] == "chosen"
    assert said["probed"] and all(row["measured_step_s"] > 0 for row in said["probed"])
    assert not (workplace / "runs" / "digits").exists(), "a plan runs nothing"


@pytest.mark.slow
def test_a_declared_job_is_planned_on_a_cluster_on_a_chip_and_on_any_and_not_run(tmp_path: Path) -> None:
    write(tmp_path, GPT)
    (tmp_path / "my-chip.yaml").write_text(CHIP)
    there = json.loads(thrifty("plan", "job.yaml", "--on", "h100:8", "--json", cwd=tmp_path).stdout)
    assert there["plan"] is None
    assert there["offers"][0]["cost"]["usd"]["value"] > 0
    assert {row["number"] for row in there["limited_by"]} == {"arithmetic", "memory bandwidth", "memory", "network"}
    chip = json.loads(thrifty("plan", "job.yaml", "--on", "my-chip.yaml:8", "--json", cwd=tmp_path).stdout)
    assert chip["offers"][0]["step_seconds"] < there["offers"][0]["step_seconds"]
    everywhere = thrifty("plan", "job.yaml", "--on", "any", "--html", "any.html", cwd=tmp_path)
    assert everywhere.returncode == 0, everywhere.stderr
    assert "machine" in everywhere.stdout and "h100" in everywhere.stdout
    run = thrifty("run", "job.yaml", cwd=tmp_path)
    assert run.returncode == 2
    assert "has no data to train on" in run.stderr


@pytest.mark.slow
def test_images_are_planned_on_a_cluster_and_on_any(workplace: Path, tmp_path: Path) -> None:
    write(workplace, {**RESNET, "train": {"epochs": 2, "batch": 64}})
    there = thrifty("plan", "job.yaml", "--on", "h100:8", "--html", "plan.html", cwd=workplace)
    assert there.returncode == 0, there.stderr
    for said in (
        "▸",
        "data 8",
        "why this one",
        "what limits it",
        "SyncBatchNorm",
        "as most people run it",
        "nothing ran",
    ):
        assert said in there.stdout
    assert max(map(len, there.stdout.splitlines())) <= 80
    assert "resnet8" in (workplace / "plan.html").read_text(encoding="utf-8")
    everywhere = json.loads(thrifty("plan", "job.yaml", "--on", "any", "--json", cwd=workplace).stdout)
    assert {"v100-16g:1", "rtx4090:1"} <= {row["name"] for row in everywhere["machines"]}

    shutil.copy(EXAMPLES / "resnet50_imagenet.yaml", tmp_path / "job.yaml")
    (tmp_path / "my-chip.yaml").write_text(CHIP)
    table = json.loads(thrifty("plan", "job.yaml", "--on", "a100-80g:8x4", "--json", cwd=tmp_path).stdout)
    chosen = table["offers"][0]
    assert (chosen["settings"]["data"], chosen["settings"]["precision"]) == (32, "bf16")
    # 32 GPUs at NVIDIA's 16,621 images a second for eight would take 29 minutes
    assert 15 * 60 < chosen["cost"]["seconds"]["value"] < 60 * 60
    chip = json.loads(thrifty("plan", "job.yaml", "--on", "my-chip.yaml:8", "--json", cwd=tmp_path).stdout)
    assert chip["offers"][0]["cost"]["usd"]["value"] > 0
    run = thrifty("run", "job.yaml", cwd=tmp_path)
    assert run.returncode == 2
    assert "it declares 1.3 M images and names no folder" in run.stderr


@pytest.mark.slow
def test_what_does_not_fit_says_what_would_and_exits_with_three(tmp_path: Path) -> None:
    write(tmp_path, {**GPT, "model": "gpt3-175b", "train": {"batch": 64}})
    done = thrifty("plan", "job.yaml", "--on", "l4:8", cwd=tmp_path)
    assert done.returncode == 3
    assert "what would fit" in done.stdout
    assert "nothing fits" in done.stderr.splitlines()[-1]
    assert "Smallest change:" in done.stderr


PLAN_MISTAKES: dict[str, tuple[dict[str, Any], list[str], int, list[str]]] = {
    "device": (GPT, ["--on", "h10:8"], 2, ["unknown device 'h10'", "Did you mean"]),
    "move": (GPT, ["--on", "h100:8", "--allow", "fp9"], 2, ["unknown move 'fp9'", "Did you mean 'fp8'?"]),
    "degrees": (
        {**GPT, "plan": {"tensor": 5}}, ["--on", "h100:8"], 2, ["plan.tensor is 5", "the 12 heads", "1, 2, 4"],
    ),
    "batch": ({**GPT, "train": {"batch": 7}}, ["--on", "h100:8x8"], 2, ["a batch of 7", "train.batch 64 would do"]),
    "degrees here": ({**GPT, "plan": {"tensor": 2}}, [], 2, ["this machine is one device", "--on h100:8"]),
    "probe elsewhere": (GPT, ["--on", "h100:8", "--probe"], 2, ["--probe runs steps on this machine"]),
    "probe without data": (GPT, ["--probe"], 2, ["has no data to train on"]),
    "a number is missing": (GPT, ["--on", "half-chip.yaml"], 2, ["half-chip.yaml"]),
    "a model that cannot be cut": (
        {**RESNET, "plan": {"tensor": 8}}, ["--on", "h100:8"], 2, ["plan.tensor is 8", "resnet8", "no closed form"],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("mistake", PLAN_MISTAKES)
def test_mistakes_of_a_plan_are_told_in_one_line(workplace: Path, mistake: str) -> None:
    job, options, code, said = PLAN_MISTAKES[mistake]
    write(workplace, job)
    (workplace / "half-chip.yaml").write_text("name: half\nkind: cuda\nmemory: 80 GiB\n")
    done = thrifty("plan", "job.yaml", *options, cwd=workplace)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for part in said:
        assert part in done.stderr
    assert done.stdout == ""


DEAD = """
import torch
from torch import Tensor, nn


class Dead(nn.Module):
    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        if type(x) is Tensor and not x.is_meta and self.training:
            raise ValueError("the third sensor is dead")
        return self.head(x.flatten(1))


def dead(classes: int, channels: int, height: int, width: int) -> nn.Module:
    return Dead(channels * height * width, classes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["plan", "job.yaml", "--probe"], ["run", "job.yaml"]])
def test_a_probe_that_fails_says_what_and_what_to_do(workplace: Path, verb: list[str]) -> None:
    write(workplace, changed(model="sensors:dead"))
    (workplace / "sensors.py").write_text(DEAD)
    done = thrifty(*verb, cwd=workplace)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    for part in ("the probe of", "samples at once failed: the third sensor is dead", "mend the model or the data"):
        assert part in message


BAD_INPUT: dict[str, tuple[Callable[[Path], dict[str, Any]], int, list[str]]] = {
    "unknown key": (lambda _: changed(modle="x"), 2, ["unknown key 'modle'", "did you mean 'model'"]),
    "misspelt model": (lambda _: changed(model="resnt8"), 2, ["unknown model 'resnt8'", "Did you mean 'resnet8'?"]),
    "misspelt optimizer": (
        lambda _: changed(train={"optimizer": "adamv"}),
        2,
        ["unknown optimizer 'adamv'", "Did you mean 'adam'?"],
    ),
    "misspelt schedule": (lambda _: changed(train={"schedule": "cosin"}), 2, ["unknown schedule 'cosin'", "'cosine'"]),
    "misspelt init": (lambda _: changed(train={"init": "he_norml"}), 2, ["'he_norml'", "'he_normal'"]),
    "wrong unit": (lambda _: changed(budget={"memory": "4GBi"}), 2, ["unknown unit 'GBi'", "budget.memory"]),
    "missing folder": (
        lambda _: changed(data={"kind": "image", "path": "digit"}),
        2,
        ["there is no data folder", "/digit'. Did you mean", "/digits'?"],
    ),
    "model of another kind": (lambda _: changed(model="gpt-nano"), 2, ["gpt-nano", "image"]),
    "empty class": (spoil(no_class), 2, ["'4'"]),
    "one class": (spoil(one_class), 2, ["one class", "'3'"]),
    "time too small": (lambda _: changed(budget={"time": "1s"}), 3, ["too small to run anything", "at least"]),
    "money too small": (lambda _: changed(budget={"money": "0.0000001USD"}), 3, ["too small to run anything"]),
    "energy too small": (lambda _: changed(budget={"energy": "1J"}), 3, ["too small to run anything"]),
    "memory too small": (
        lambda _: changed(budget={"memory": "1MiB"}),
        3,
        ["memory 1.0 MiB is too small", "needs about"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", BAD_INPUT)
def test_bad_input_is_told_in_one_line(workplace: Path, mistake: str) -> None:
    make, code, said = BAD_INPUT[mistake]
    write(workplace, make(workplace))
    done = thrifty("run", "job.yaml", cwd=workplace)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("thrifty: ")
    for part in said:
        assert part in message
    assert done.stdout == ""


@pytest.mark.slow
def test_dirty_images_are_put_aside_and_counted(workplace: Path) -> None:
    folder = workplace / "digits" / "5"
    whole = next(folder.glob("*.png"))
    (folder / "truncated.png").write_bytes(whole.read_bytes()[:60])
    (folder / "unreadable.png").write_bytes(b"no image at all")
    (folder / "notes.txt").write_text("not an image")
    (folder / "copy.png").write_bytes(whole.read_bytes())
    assert cv2.imwrite(str(folder / "large.png"), np.full((40, 24, 3), 90, np.uint8))
    done = thrifty("run", "job.yaml", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    rejects = [json.loads(line) for line in (workplace / "runs/digits/rejects.jsonl").read_text().splitlines()]
    reasons = {Path(line["path"]).name: line["reason"] for line in rejects}
    assert "truncated" in reasons["truncated.png"]
    assert reasons.keys() >= {"truncated.png", "unreadable.png", "notes.txt"}
    assert len(reasons) == 4, "three bad files and one of the two copies"
    cleaning = json.loads((workplace / "runs/digits/dataset.json").read_text())["cleaning"]
    assert cleaning["seen"] - cleaning["kept"] == 4
    assert cleaning["duplicates"] + cleaning["across_splits"] >= 1
    assert any("size" in note for note in cleaning["notes"]), "mixed sizes are told"


@pytest.mark.slow
def test_text_that_is_not_utf8_is_put_aside(tmp_path: Path, sources: Path) -> None:
    shutil.copytree(sources, tmp_path / "sources")
    (tmp_path / "sources" / "latin.py").write_bytes("# caf\xe9\n".encode("latin-1"))
    job = {
        "name": "sources",
        "data": {"kind": "language", "path": "sources", "files": "**/*.py", "vocabulary": 300, "length": 32},
        "model": "gpt-nano",
        "train": {"steps": 2, "batch": 2},
        "plan": {"precision": "fp32", "checkpointing": "none", "compile": "none"},
    }
    write(tmp_path, job)
    done = thrifty("run", "job.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (reject,) = [
        json.loads(line)
        for line in (tmp_path / "runs/sources/rejects.jsonl").read_text().splitlines()
        if "latin" in line
    ]
    assert "not UTF-8 at byte 5" in reject["reason"]
    assert json.loads(done.stdout)["result"]["completion"]


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_run_can_go_on(workplace: Path) -> None:
    """The system's limit on a file's size stands in for the end of the disk: writes fail half way through."""
    done = thrifty_from_the_start("run", "job.yaml", cwd=workplace, file_bytes=60_000)
    assert done.returncode == 4, done.stderr
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    after = thrifty("run", "job.yaml", "--json", cwd=workplace)
    assert after.returncode == 0, after.stderr


@pytest.mark.slow
def test_a_read_only_run_folder_is_told(workplace: Path) -> None:
    done = thrifty("run", "job.yaml", "--runs", "/proc/thrifty", cwd=workplace)
    assert done.returncode == 4, done.stderr
    assert "/proc/thrifty" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_second_process_on_the_same_run_is_told_who_holds_it(workplace: Path) -> None:
    write(workplace, changed(train={"epochs": 20_000, "batch": 32}))
    with forked.start(["-m", "thrifty", "run", "job.yaml"], workplace) as first:
        try:
            deadline = time.monotonic() + 60
            while not (workplace / "runs/digits/plan.json").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            second = thrifty("run", "job.yaml", cwd=workplace)
        finally:
            first.kill()
    assert second.returncode == 4
    assert f"is held by process {first.pid}" in second.stderr


def test_every_verb_prints_json() -> None:
    from typer.main import get_command

    from thrifty.cli import app

    verbs = getattr(get_command(app), "commands", {})
    assert len(verbs) >= 13
    for name, verb in verbs.items():
        assert any("--json" in parameter.opts for parameter in verb.params), name
