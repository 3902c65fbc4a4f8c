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

JOB: dict[str, Any] = {
    "name": "digits",
    "data": {"kind": "image", "path": "digits"},
    "model": "resnet8",
    "train": {"epochs": 2, "batch": 32},
}


def thrifty(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "thrifty", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, **options)


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


def test_help_fits_a_screen_and_is_quick() -> None:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = thrifty("--help")
        times.append(time.perf_counter() - began)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) <= 24
    assert min(times) < 0.5


def test_every_verb_has_help() -> None:
    verbs = [line.split()[0] for line in thrifty("--help").stdout.split("Commands:")[1].strip().splitlines()]
    assert {"init", "hardware", "plan", "run", "tune", "export", "predict", "serve", "report", "ledger"} <= set(verbs)
    for verb in verbs:
        done = thrifty(verb, "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) <= 24, verb


@pytest.mark.slow
def test_the_whole_way(workplace: Path) -> None:
    first = thrifty("run", "job.yaml", "--json", cwd=workplace)
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

    began = time.perf_counter()
    second = thrifty("run", "job.yaml", cwd=workplace)
    assert time.perf_counter() - began < 3
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
    assert exported["onnx"]["max_abs_difference"] < 1e-4

    write(workplace, changed(train={"epochs": 1, "batch": 32}))
    third = json.loads(thrifty("run", "job.yaml", "--json", cwd=workplace).stdout)
    assert third["fresh"]
    assert third["folder"] == "runs/digits-2", "another job must not touch the first one's folder"


@pytest.mark.slow
def test_tune_finds_at_least_the_start(workplace: Path) -> None:
    done = thrifty("tune", "job.yaml", "--budget", "20min", "--trials", "3", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    tuned = json.loads(done.stdout)
    trials = tuned["search"]["trials"]
    assert len(trials) == 3
    best = trials[tuned["search"]["best"]]["value"]
    assert best == max(trial["value"] for trial in trials if trial["status"] == "done")
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

    def tiny_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))

    done = thrifty("run", "job.yaml", cwd=workplace, preexec_fn=tiny_disk)
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
    write(workplace, changed(train={"epochs": 200, "batch": 32}))
    command = [sys.executable, "-m", "thrifty", "run", "job.yaml"]
    with subprocess.Popen(command, cwd=workplace, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        try:
            deadline = time.monotonic() + 60
            while not (workplace / "runs/digits/plan.json").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            second = thrifty("run", "job.yaml", cwd=workplace)
        finally:
            first.kill()
    assert second.returncode == 4
    assert f"is held by process {first.pid}" in second.stderr
