"""The pages as one ASGI application: what answers which path, and what people see of errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import thrifty.web.compare_page as compare_page
import thrifty.web.ledger_page as ledger_page
import thrifty.web.plan_page as plan_page
import thrifty.web.run_page as run_page
import thrifty.web.runs_page as runs_page
import thrifty.web.served_page as served_page
import thrifty.web.studies_page as studies_page
from thrifty.errors import RequestError, ThriftyError
from thrifty.web.guard import App, Guard
from thrifty.web.render import asset, page
from thrifty.web.site import Site

_GET: dict[str, Callable[[Site, Request], Response]] = {
    "/": runs_page.show,
    "/compare": compare_page.show,
    "/runs/{number:int}": run_page.show,
    "/runs/{number:int}/report": run_page.report,
    "/runs/{number:int}/live": run_page.live,
    "/plan": plan_page.show,
    "/ledger": ledger_page.show,
    "/studies": studies_page.show,
    "/served": served_page.show,
}
_POST: dict[str, Callable[[Site, Request], Any]] = {
    "/runs/{number:int}/steer": run_page.steer,
    "/plan": plan_page.ask,
    "/served": served_page.ask,
}


def app(site: Site, host: str) -> App:
    """Make the application.

    Args:
        site: what it shows.
        host: address that it is listened for on.
    """
    # a plain function is answered in a thread beside the loop: one may read a large ledger
    routes = [Route(path, functools.partial(show, site), methods=["GET"]) for path, show in _GET.items()]
    routes += [Route(path, functools.partial(do, site), methods=["POST"]) for path, do in _POST.items()]
    routes.append(Route("/static/{name}", _static, methods=["GET"]))
    handlers = cast(Any, {ThriftyError: _told, HTTPException: _refused, Exception: _broken})
    return Guard(cast(App, Starlette(routes=routes, exception_handlers=handlers)), host=host, token=site.token)


def _static(request: Request) -> Response:
    found = asset(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    return found


def _told(request: Request, error: ThriftyError) -> Response:
    status = error.status if isinstance(error, RequestError) else 400 if request.method == "POST" else 500
    return _error(request, status, str(error))


def _refused(request: Request, error: HTTPException) -> Response:
    return _error(request, error.status_code, f"{HTTPStatus(error.status_code).phrase}: {request.url.path}")


def _broken(request: Request, error: Exception) -> Response:
    return _error(request, 500, f"This cannot be shown: {type(error).__name__}. The terminal of thrifty ui says more.")


def _error(request: Request, status: int, says: str) -> Response:
    if request.method == "POST" or request.url.path.endswith("/live"):
        return JSONResponse({"error": says}, status)
    return page("error.html", here="", title=HTTPStatus(status).phrase, status=status, says=says)
