"""The page of a run: its report once it is done, else its course, whatever its folder holds; and what steers it."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_device
from made_site import Shown, add_run
from test_web_studies import make_study

from thrifty.ledger import Ledger
from thrifty.runs import RunFolder
from thrifty.spec import parse_budget
from thrifty.spec.events import Lowered, Paused, StepDone, WentOn
from thrifty.spec.steering import Steering

pytestmark = pytest.mark.slow


def course_of(html: str) -> dict[str, Any]:
    data = re.search(r'id="course">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    course: dict[str, Any] = json.loads(data[1])
    return course


def test_a_run_that_is_done_shows_its_report_apart(shared: Shown, numbers: dict[str, int]) -> None:
    html = shared.client.get(f"/runs/{numbers['digits']}").text
    frame = f'<iframe src="/runs/{numbers["digits"]}/report" title="Report of digits" data-other-title="digits 的报告" '
    assert f'{frame}sandbox="allow-scripts">' in html
    reply = shared.client.get(f"/runs/{numbers['digits']}/report")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'") and "connect-src" not in policy
    assert "frame-ancestors 'self'" in policy and "allow-same-origin" not in policy
    assert "of this run" in reply.text
    assert shared.client.get(f"/runs/{numbers['now']}/report").status_code == 404
    course = course_of(shared.client.get(f"/runs/{numbers['digits']}?course=1").text)
    assert course["status"] == "done" and {each["id"] for each in course["figures"]} >= {"loss", "validation"}


def test_a_run_under_way_goes_on(site: Shown, few: dict[str, int]) -> None:
    html = site.client.get(f"/runs/{few['now']}").text
    course = course_of(html)
    assert (course["status"], course["says"], course["paused"]) == ("running", "It trains.", False)
    assert [tile["what"] for tile in course["tiles"]] == ["Steps", "Validation accuracy", "Training", "Money"]
    assert course["tiles"][0]["figure"] == "300" and "left at most; predicted 1m 52s" in course["tiles"][2]["more"][0]
    assert "最多还剩" in course["tiles"][2]["more"][1] and course["words"]["It trains."] == "正在训练。"
    assert 'id="pause"' in html and 'id="stop"' in html and 'id="lower"' in html
    path = f"/runs/{few['now']}/live"
    same = site.client.get(path, params={"seen": course["seen"]}).json()
    assert "figures" not in same and same["seen"] == course["seen"]
    writer = RunFolder(site.site.runs / "now").writer()
    writer(StepDone(301, 1350, 6.7, 0.25, 1e-3, 1.0, 400.0, 0.08))
    writer(Paused(301))
    paused = site.client.get(path, params={"seen": course["seen"]}).json()
    assert (paused["seen"], paused["paused"], paused["tiles"][0]["figure"]) == (course["seen"] + 2, True, "301")
    loss = next(each for each in paused["figures"] if each["id"] == "loss")
    assert loss["data"][0]["x"][-1] == 301
    writer(WentOn(301, 12.0))
    writer(Lowered(301, "5m 00s"))
    after = site.client.get(path).json()
    assert not after["paused"]
    assert [line["says"] for line in after["told"]] == [
        "Paused as asked at step 301; what was learned is saved",
        "Going on at step 301 after a pause of 12.0 s, which is on no bill",
        "The budget is lower from step 301 on: 5m 00s of the whole run",
    ]


def test_a_run_that_broke_off_shows_what_there_is(shared: Shown, numbers: dict[str, int]) -> None:
    html = shared.client.get(f"/runs/{numbers['killed']}").text
    assert "Its process is gone" in html and "resnet8" in html and 'id="pause"' not in html
    assert course_of(html)["figures"]
    assert "The disk is full" in shared.client.get(f"/runs/{numbers['broke']}").text


@pytest.mark.parametrize("gone", ["plan.json", "device.json", "events.jsonl", "job.yaml", "the folder"])
def test_whatever_is_not_there_is_left_out(site: Shown, few: dict[str, int], gone: str) -> None:
    folder = site.site.runs / "killed"
    if gone == "the folder":
        shutil.rmtree(folder)
    else:
        (folder / gone).unlink()
    reply = site.client.get(f"/runs/{few['killed']}")
    assert reply.status_code == 200 and "The bill so far" in reply.text
    assert ("Its folder is not on this machine" in reply.text) == (gone == "the folder")


@pytest.mark.parametrize("spoilt", ["plan.json", "device.json", "control.json", "job.yaml"])
def test_whatever_is_damaged_is_left_out(site: Shown, few: dict[str, int], spoilt: str) -> None:
    (site.site.runs / "now" / spoilt).write_bytes(b"\xff{<script>alert(1)</script>")
    reply = site.client.get(f"/runs/{few['now']}")
    assert reply.status_code == 200 and "<script>alert" not in reply.text


def test_lines_that_are_no_events_are_counted(site: Shown, few: dict[str, int]) -> None:
    path = site.site.runs / "killed" / "events.jsonl"
    whole = path.read_bytes()
    more = b'{"event": "OfALaterVersion", "step": 1}\n\0\0\0\n{"event": "Paused"}\n[1]\n{"event": "StepDo'
    path.write_bytes(whole + more)
    html = site.client.get(f"/runs/{few['killed']}").text
    assert "4 lines of <code>events.jsonl</code> cannot be read" in html
    assert course_of(html)["tiles"][0]["figure"] == "120"


def test_a_run_that_has_not_begun_to_train_says_so(site: Shown, few: dict[str, int]) -> None:
    folder = site.site.runs / "now"
    (folder / "events.jsonl").unlink()
    assert course_of(site.client.get(f"/runs/{few['now']}").text)["says"] == "It is about to train."
    (folder / "plan.json").unlink()
    course = course_of(site.client.get(f"/runs/{few['now']}").text)
    assert (course["says"], course["tiles"], course["figures"]) == ("It prepares its data, and plans.", [], [])


def test_a_run_is_asked_to_wait_to_go_on_and_to_stop(site: Shown, few: dict[str, int]) -> None:
    folder = RunFolder(site.site.runs / "now")
    path = f"/runs/{few['now']}/steer"
    for ask, says in (("pause", "and waits"), ("go", "It goes on."), ("stop", "keeps its best")):
        reply = site.act(path, {"ask": ask})
        assert reply.status_code == 200 and says in reply.json()["says"][0]
        assert folder.steering().ask == ask
    reply = site.act(path, {"lower": "90s"})
    assert reply.json()["says"] == ["It may spend 1m 30s in all.", "它总共可花 1m 30s。"]
    assert folder.steering() == Steering.model_validate({"ask": "stop", "time": "90s"})
    assert site.act(path, {"lower": "0.10USD"}).status_code == 200
    assert folder.steering().limits == {"seconds": 90.0, "usd": 0.10}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"ask": "halt"}, "unknown thing to ask of a run 'halt'. Known: go, pause, stop."),
        ({"ask": "stopp"}, "Did you mean 'stop'?"),
        ({"lower": "5"}, "is no amount of time, energy or money"),
        ({"lower": "2h"}, "a budget of 2h 00m is not lower: training ends at 19m 50s as it is"),
        ({"lower": "<script>"}, "'<script>' is no amount"),
    ],
    ids=["unknown", "misspelt", "no unit", "not lower", "hostile"],
)
def test_what_cannot_be_asked_is_told(shared: Shown, numbers: dict[str, int], body: dict[str, str], says: str) -> None:
    reply = shared.act(f"/runs/{numbers['now']}/steer", body)
    assert reply.status_code == 400 and says in reply.json()["error"]
    assert not (shared.site.runs / "now" / "control.json").exists()


def test_a_run_that_is_not_under_way_takes_nothing(shared: Shown, numbers: dict[str, int]) -> None:
    for name, status in (("digits", "done"), ("killed", "interrupted"), ("broke", "failed")):
        reply = shared.act(f"/runs/{numbers[name]}/steer", {"ask": "stop"})
        assert reply.status_code == 400 and f"is not under way, but {status}" in reply.json()["error"]
    assert shared.act("/runs/999/steer", {"ask": "stop"}).status_code == 404


def test_a_search_is_told_and_asked_as_a_run_is(site: Shown, runs: Path) -> None:
    folder = RunFolder(runs / "digits-tune")
    make_study(folder.folder)
    folder.begin_search(parse_budget("10min"))
    writer = folder.writer()
    with closing(Ledger(runs / "ledger.sqlite")) as ledger:
        number = ledger.begin(
            name="digits-tune",
            key="key",
            folder=folder.folder,
            job="{}",
            device=make_device(),
            code="",
            pid=os.getpid(),
        )
    html = site.client.get(f"/runs/{number}").text
    course = course_of(html)
    assert (course["says"], course["figures"], course["paused"]) == ("It searches.", [], False)
    assert [(tile["what"], tile["figure"]) for tile in course["tiles"][:2]] == [
        ("Trials", "5"),
        ("Best so far", "0.95"),
    ]
    assert course["tiles"][0]["more"][0] == "2 done, 1 pruned, 1 failed, 1 running"
    assert course["tiles"][2]["more"][0] == "of 10m 00s"
    assert 'id="pause"' in html and "Steer this search" in html and "Steer this run" not in html
    assert "pause it, stop it" in site.client.get("/studies").text
    path = f"/runs/{number}/steer"
    assert site.act(path, {"ask": "pause"}).status_code == 200 and folder.steering().ask == "pause"
    writer(Paused(0))
    paused = site.client.get(f"/runs/{number}/live").json()
    assert paused["paused"] and paused["told"][0]["says"] == "Paused as asked; what was learned is saved"
    reply = site.act(path, {"lower": "1h"})
    assert reply.status_code == 400
    assert "a budget of 1h 00m is not lower: the search ends at 10m 00s as it is" in reply.json()["error"]
    assert site.act(path, {"lower": "5min"}).status_code == 200
    assert folder.steering() == Steering.model_validate({"ask": "pause", "time": "5min"})
    with closing(Ledger(runs / "ledger.sqlite")) as ledger:
        ledger.finish(number, status="done", metrics={"accuracy": 0.95}, reason="stopped as asked")
    folder.end_search()
    assert folder.steering() == Steering()
    reply = site.act(path, {"ask": "stop"})
    assert (
        reply.status_code == 400
        and "is not under way, but done. Start it: thrifty tune its job" in reply.json()["error"]
    )


def test_a_run_begun_anew_in_the_folder_is_read_from_its_start(site: Shown, few: dict[str, int]) -> None:
    path = f"/runs/{few['now']}/live"
    assert site.client.get(path).json()["tiles"][0]["figure"] == "300"
    folder = RunFolder(site.site.runs / "now")
    (folder.folder / "events.jsonl").unlink()
    folder.writer()(StepDone(1, 1350, 0.1, 2.5, 1e-3, 1.0, 400.0, 0.08))
    assert site.client.get(path).json()["tiles"][0]["figure"] == "1"


def test_many_runs_are_followed_and_few_are_kept(site: Shown, runs: Any) -> None:
    numbers = [add_run(runs, f"run-{n}", status="interrupted", steps=3) for n in range(11)]
    for number in numbers:
        assert site.client.get(f"/runs/{number}/live").json()["tiles"][0]["figure"] == "3"
    assert len(site.site._followed) == 8
