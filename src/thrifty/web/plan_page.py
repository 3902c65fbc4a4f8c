"""The page that plans: a job is priced once, in a process of its own; the browser draws what limits leave of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from thrifty.errors import JobError, RequestError, ThriftyError
from thrifty.report.figures import number
from thrifty.report.plan_tables import head_text, interval_text, paragraphs
from thrifty.report.words import in_parts, pair, same
from thrifty.spec import Pins, load_job
from thrifty.spec.proposal import Offer, Proposal
from thrifty.web.asked import read_asked, text_of
from thrifty.web.render import page
from thrifty.web.site import Site

# folders in which nobody keeps jobs of their own
_PASSED_OVER = {"node_modules", "site-packages", "__pycache__"}
_MOST_DEEP, _MOST_FOLDERS, _MOST_FILES = 4, 2000, 400
_MOST_WAYS = 12
# the first plan on a machine measures it, for some minutes at worst
_PATIENCE_SECONDS = 1200.0


def show(site: Site, request: Request) -> Response:
    """Show the jobs there are, and the form that plans one."""
    return page(
        "plan.html",
        here="plan",
        title="Plan",
        jobs=[str(path) for path in found_jobs(site.folder, site.runs)],
        chosen=request.query_params.get("job", ""),
        folder=str(site.folder),
    )


async def ask(site: Site, request: Request) -> Response:
    """Plan the ``job`` that is asked for, ``on`` this machine or another; tell every way that no other beats."""
    asked = await read_asked(request)
    name, on = text_of(asked, "job"), text_of(asked, "on")
    known = await run_in_threadpool(found_jobs, site.folder, site.runs)
    if name not in map(str, known):
        raise RequestError(f"there is no job file '{name}' under '{site.folder}'", status=404)
    if not site.planning.acquire(blocking=False):
        raise RequestError("something is planned already", status=409, mend="Wait for it.")
    try:
        proposal = await _planned(site.folder / name, on, site.runs)
    finally:
        site.planning.release()
    return JSONResponse(told(proposal, await run_in_threadpool(_asked_for, site.folder / name), name))


def found_jobs(folder: Path, runs: Path) -> list[Path]:
    """Return the job files under a folder, by their paths in it: YAML that says a job, not what runs left."""
    files = itertools.islice(_yaml_files(folder, runs), _MOST_FILES)
    return sorted(path.relative_to(folder) for path in files if _is_job(path))


def told(proposal: Proposal, job: dict[str, Any] | None = None, name: str = "job.yaml") -> dict[str, Any]:
    """Return a proposal as the page draws it: each way with its figures; in seconds, bytes, joules and US dollars.

    Args:
        proposal: what the planner said.
        job: the job that was planned, as its file has it; ways of this machine are then told as jobs.
        name: of its file.
    """
    what, where = head_text(proposal)
    if proposal.machines:
        ways = [_way(row.offer, name=row.name, device=row.device) for row in proposal.machines]
        for way, row in zip(ways, proposal.machines, strict=True):
            way["command"] = f"thrifty plan {shlex.quote(name)} --on {shlex.quote(row.name)}"
    else:
        # the front first: an offer may be a way of it, for as many steps as the budget holds
        offers = {tuple(sorted(offer.settings.items())): offer for offer in (*proposal.front, *proposal.offers)}
        ways = [_way(offer) for offer in offers.values()]
        if job is not None and proposal.plan is not None:
            file = Path(name).with_name(f"{Path(name).stem}-planned.yaml")
            for way, offer in zip(ways, offers.values(), strict=True):
                way["job"], way["file"] = job_of(job, offer), str(file)
                way["command"] = f"thrifty run {shlex.quote(str(file))}" if way["job"] else ""
    return {
        "what": what,
        "where": where,
        "ways": ways,
        "machines": bool(proposal.machines),
        "would_fit": list(proposal.would_fit),
        "said": [[pair(label), text] for label, text in paragraphs(proposal)],
    }


def job_of(job: dict[str, Any], offer: Offer) -> str:
    """Write a job so that it is computed in one of the ways there are: what the way decides stands in ``plan``.

    >>> from thrifty.spec import Cost, Interval
    >>> one = Interval.around(1.0, 0.1, "")
    >>> cost = Cost(seconds=one, peak_bytes=one, joules=one, usd=one, flops=one)
    >>> way = Offer(says="bf16", settings={"micro_batch": 8, "flash": True}, cost=cost, step_seconds=1, mark="front")
    >>> print(job_of({"name": "a", "plan": {"threads": 2}}, way))
    name: a
    plan:
      threads: 2
      micro_batch: 8
    <BLANKLINE>
    """
    pins = {field: value for field, value in offer.settings.items() if field in Pins.model_fields}
    try:
        Pins.model_validate(pins)
    except ValidationError:
        # a way that no job can ask for, such as that of most people on another machine
        return ""
    own = job.get("plan")
    made = {**job, "plan": {**(own if isinstance(own, dict) else {}), **pins}}
    return yaml.safe_dump(made, sort_keys=False, allow_unicode=True)


def _asked_for(path: Path) -> dict[str, Any] | None:
    """A job as its file has it; None where that cannot be read any more."""
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) else None


def _way(offer: Offer, name: str = "", device: str = "") -> dict[str, Any]:
    cost = offer.cost
    return {
        "name": same(name) if name else in_parts(offer.says),
        "says": in_parts(offer.says) if name else "",
        "device": device,
        "remark": pair(offer.remark),
        "chosen": offer.mark == "chosen" and not name,
        "usual": offer.mark == "usual",
        "fits": offer.fits,
        "spread": interval_text(offer),
        "seconds": number(cost.seconds.value),
        "bytes": number(cost.peak_bytes.value),
        "joules": number(cost.joules.value),
        "usd": number(cost.usd.value),
        "job": "",
        "file": "",
        "command": "",
    }


async def _planned(job: Path, on: str, runs: Path) -> Proposal:
    """Plan in a process of its own: it loads torch and traces models, and these pages would wait for it.

    Raises:
        JobError: the planner refused; its own words.
    """
    command = [sys.executable, "-m", "thrifty", "plan", str(job), f"--on={on}", f"--top={_MOST_WAYS}"]
    process = await asyncio.create_subprocess_exec(
        *command,
        f"--runs={runs}",
        "--json",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate(), _PATIENCE_SECONDS)
    except TimeoutError:
        raise JobError(f"planning took longer than {_PATIENCE_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:  # also where the server stops meanwhile
            process.kill()
    # where nothing fits, what would is told, and an error too
    if out.strip():
        return Proposal.model_validate_json(out)
    said = errors.decode(errors="replace").strip().splitlines() or [f"planning ended with {process.returncode}"]
    raise JobError(said[-1].removeprefix("thrifty: ").removesuffix("."))


def _yaml_files(folder: Path, runs: Path) -> Iterator[Path]:
    left_out = runs.resolve()
    for seen, (place, folders, files) in enumerate(os.walk(folder)):
        here = Path(place)
        deep = len(here.relative_to(folder).parts)
        own = [name for name in folders if not name.startswith(".") and name not in _PASSED_OVER]
        deeper = deep < _MOST_DEEP and seen < _MOST_FOLDERS
        folders[:] = [name for name in sorted(own) if deeper and (here / name).resolve() != left_out]
        yield from (here / name for name in sorted(files) if name.endswith((".yaml", ".yml")))


def _is_job(path: Path) -> bool:
    try:
        load_job(path)
    except (ThriftyError, OSError):
        return False
    return True
