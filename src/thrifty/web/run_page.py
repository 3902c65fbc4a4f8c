"""The page of a run or a search: its report once it is done; until then its course, and what steers it."""

from __future__ import annotations

from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from thrifty.api import steer as ask_of_run
from thrifty.errors import RequestError, ThriftyError
from thrifty.ledger import Entry
from thrifty.report.decided import value_text
from thrifty.report.rows import bill_rows, metric_name, metric_text
from thrifty.report.words import Pair, joined, pair, same, sentences
from thrifty.runs import RunFolder
from thrifty.spec import Plan
from thrifty.web.asked import read_asked, text_of
from thrifty.web.course import told_of
from thrifty.web.render import page
from thrifty.web.site import Site

# a report is a file that anybody may have written: it runs apart, may ask nothing of anybody, and reads no other page
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_ASKED = {
    "pause": "It saves what was learned after the step at hand, and waits.",
    "go": "It goes on.",
    "stop": "It stops after the step at hand, and keeps its best.",
}


def show(site: Site, request: Request) -> Response:
    """Show one run."""
    entry = site.entry(request.path_params["number"])
    folder = _folder(entry)
    name = Path(entry.folder).name or entry.name
    if entry.status == "done" and folder.page.is_file() and "course" not in request.query_params:
        return page("report.html", here="runs", title=same(name), name=name, entry=entry)
    plan = _plan(folder)
    rows, total = bill_rows(entry)
    searches = folder.searches
    return page(
        "run.html",
        here="runs",
        title=same(name),
        name=name,
        entry=entry,
        has_report=folder.page.is_file(),
        searches=searches,
        # what a budget should buy, say, is sought by runs, and is none that looks for what it is asked
        steers=entry.status == "running" and (bool(folder.key) or searches),
        here_too=folder.folder.is_dir(),
        course=told_of(site.course(folder), folder, entry),
        job_text=_job_text(folder),
        why=plan.why if plan is not None else (),
        value_text=value_text,
        bill=[*rows, total] if rows else [],
        reached=_reached(entry, on_test=plan is not None),
    )


def _reached(entry: Entry, *, on_test: bool) -> Pair | str:
    """The figures that a run or a search came to, in a sentence."""
    figures = [
        pair("{name} {value}", name=metric_name(each), value=same(metric_text(each, value)))
        for each, value in entry.metrics.items()
    ]
    if not figures:
        return ""
    return pair("On the test split: {figures}." if on_test else "It reached: {figures}.", figures=joined(figures))


def live(site: Site, request: Request) -> Response:
    """Tell how a run goes; without its figures where nothing was added to what ``seen`` events said."""
    entry = site.entry(request.path_params["number"])
    folder = _folder(entry)
    found = told_of(site.course(folder), folder, entry)
    if request.query_params.get("seen") == str(found["seen"]):
        del found["figures"]
    return JSONResponse(found)


def report(site: Site, request: Request) -> Response:
    """Show a run's report as the file it is, apart from the pages here."""
    entry = site.entry(request.path_params["number"])
    path = _folder(entry).page
    if not path.is_file():
        raise RequestError(f"run {entry.id} has no report", status=404, mend="Write it: thrifty report its folder.")
    headers = {"content-security-policy": _REPORT_POLICY, "cross-origin-resource-policy": "same-origin"}
    return FileResponse(path, media_type="text/html; charset=utf-8", headers=headers)


async def steer(site: Site, request: Request) -> Response:
    """Ask a run or a search to pause, go on or stop (``ask``), or to spend less (``lower``)."""
    asked = await read_asked(request)
    ask, lower = text_of(asked, "ask"), text_of(asked, "lower")
    if not ask and not lower:
        raise RequestError("nothing is asked for: neither 'ask' nor 'lower'")

    def go() -> Pair:
        entry = site.entry(request.path_params["number"])
        now = ask_of_run(Path(entry.folder), ask, lower=lower, runs=site.runs)
        said = [pair(_ASKED[now.ask])] if ask else []
        return sentences([*said, *([pair("It may spend {limit} in all.", limit=now.says)] if lower else [])])

    return JSONResponse({"says": await run_in_threadpool(go)})


def _folder(entry: Entry) -> RunFolder:
    return RunFolder(Path(entry.folder))


def _plan(folder: RunFolder) -> Plan | None:
    try:
        return folder.find("plan", Plan)
    except (ThriftyError, OSError):
        return None


def _job_text(folder: RunFolder) -> str:
    try:
        return (folder.folder / "job.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
