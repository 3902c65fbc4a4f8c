"""The page that plans: the jobs there are, what it tells the browser, and that one thing is planned at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_runs import make_cost, make_plan
from made_site import Shown

from thrifty.spec import parse_job
from thrifty.spec.proposal import Machine, Offer, Proposal
from thrifty.web.plan_page import found_jobs, told

JOB = {"name": "digits", "data": {"kind": "image", "path": "digits"}, "model": "mlp-small", "train": {"epochs": 2}}


def write(path: Path, job: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(job))
    return path


def offer(says: str, *, seconds: float = 1.0, mark: str = "front", micro: int = 32) -> Offer:
    cost = make_cost()
    scaled = {
        name: getattr(cost.seconds, name) * seconds for name in ("low", "value", "high")
    }  # fmt: skip
    return Offer(
        says=says,
        settings={"micro_batch": micro},
        cost=cost.model_copy(update={"seconds": cost.seconds.model_copy(update=scaled)}),
        step_seconds=0.08,
        mark=mark,
    )


def proposal(**changes: Any) -> Proposal:
    first = offer("bf16 · 32 at once", mark="chosen")
    made = Proposal(
        job="digits", model="resnet8", where="this machine", parameters=78_042, steps=1350, batch=32, length=0,
        offers=(first, offer("as most run it", seconds=2, mark="usual", micro=8)),
        front=(offer("bf16 · 32 at once"), offer("bf16 · 16 at once", seconds=1.2, micro=16)), why=(),
        time_goes={"products": 1.0}, memory_holds={}, limits=(), candidates=9, priced=4, planning_seconds=2.0,
    )  # fmt: skip
    return made.model_copy(update=changes)


def test_jobs_are_found_and_what_is_none_is_not(tmp_path: Path) -> None:
    for name in ("a.yaml", "deep/er/b.yml", "runs/digits/job.yaml", ".hidden/c.yaml", "node_modules/d.yaml"):
        write(tmp_path / name, JOB)
    write(tmp_path / "settings.yaml", {"colour": "green"})
    write(tmp_path / "x/y/z/u/v/too-deep.yaml", JOB)
    (tmp_path / "broken.yaml").write_text("{[")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\0")
    assert list(map(str, found_jobs(tmp_path, tmp_path / "runs"))) == ["a.yaml", "deep/er/b.yml"]


@pytest.mark.slow
def test_the_page_names_the_jobs(site: Shown, tmp_path: Path) -> None:
    assert "There is no job file under" in site.client.get("/plan").text
    write(tmp_path / "my job <b>.yaml", JOB)
    html = site.client.get("/plan").text
    assert "<option>my job &lt;b&gt;.yaml</option>" in html


def test_each_way_is_told_once_with_its_figures() -> None:
    said = told(proposal())
    assert [(way["name"].en, way["chosen"], way["usual"]) for way in said["ways"]] == [
        ("bf16 · 32 at once", True, False), ("bf16 · 16 at once", False, False), ("as most run it", False, True),
    ]  # fmt: skip
    assert said["ways"][2]["seconds"] == 224.0 and not said["machines"]
    machine = Machine(
        name="h100:8", device="NVIDIA H100", devices=8, offer=offer("tensor 8"), speedup_of_doubling=1.9, pays=True,
        on_front=True,
    )  # fmt: skip
    (way,) = told(proposal(machines=(machine,), offers=(), front=()))["ways"]
    assert (way["name"].en, way["says"], way["device"]) == ("h100:8", ("tensor 8", "张量 8"), "NVIDIA H100")
    assert (way["job"], way["command"]) == ("", "thrifty plan job.yaml --on h100:8")
    json.dumps(told(proposal()), allow_nan=False)


def test_what_is_no_number_is_told_as_none() -> None:
    cost = make_cost()
    endless = cost.usd.model_copy(update={"value": math.inf, "high": math.inf})
    way = offer("a").model_copy(update={"cost": cost.model_copy(update={"usd": endless})})
    json.dumps(told(proposal(offers=(way,), front=())), allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../secret.yaml", "/etc/passwd", "", "none.yaml", "a.yaml\0"])
def test_only_jobs_that_are_listed_are_planned(site: Shown, tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.yaml", JOB)
    reply = site.act("/plan", {"job": name})
    assert reply.status_code == 404 and "there is no job file" in reply.json()["error"]


@pytest.mark.slow
def test_one_thing_is_planned_at_a_time(site: Shown, tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", JOB)
    assert site.site.planning.acquire(blocking=False)
    reply = site.act("/plan", {"job": "a.yaml"})
    assert (reply.status_code, reply.json()["error"]) == (409, "something is planned already. Wait for it.")


@pytest.mark.slow
def test_what_the_planner_refuses_is_told_in_its_own_words(site: Shown, tmp_path: Path, digits: Path) -> None:
    write(tmp_path / "a.yaml", {**JOB, "data": {"kind": "image", "path": str(digits)}})
    write(tmp_path / "b.yaml", {**JOB, "data": {"kind": "image", "path": "no such folder"}})
    for job, on, says in (("b", "", "no such folder"), ("a", "--help", "'--help'")):
        reply = site.act("/plan", {"job": f"{job}.yaml", "on": on})
        assert reply.status_code == 400 and says in reply.json()["error"], reply.text
    assert not site.site.planning.locked()


def test_a_way_of_this_machine_is_told_as_a_job_that_decides_so() -> None:
    made = proposal(plan=make_plan())
    job = {**JOB, "plan": {"threads": 2}}
    first, second, usual = told(made, job, "deep/a job.yaml")["ways"]
    assert yaml.safe_load(first["job"]) == {**job, "plan": {"threads": 2, "micro_batch": 32}}
    assert yaml.safe_load(second["job"])["plan"]["micro_batch"] == 16 and usual["job"]
    assert first["file"] == "deep/a job-planned.yaml"
    assert first["command"] == "thrifty run 'deep/a job-planned.yaml'"
    parse_job(yaml.safe_load(first["job"]))
    unasked = first_of(made, {"micro_batch": 32, "precision": "of another machine"})
    assert (unasked["job"], unasked["command"]) == ("", "")
    assert told(made)["ways"][0]["job"] == "", "without the job there is none to write"


def first_of(made: Proposal, settings: dict[str, Any]) -> dict[str, Any]:
    way = made.offers[0].model_copy(update={"settings": settings})
    found: dict[str, Any] = told(made.model_copy(update={"offers": (way,), "front": ()}), JOB)["ways"][0]
    return found
