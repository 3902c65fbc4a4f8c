"""What each request passes on its way in and out: its id, its key, its line in the log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

import thrifty.serve.oip as oip
import thrifty.serve.openai as openai
import thrifty.serve.page as page
import thrifty.serve.tfserving as tfserving
from thrifty.errors import RequestError
from thrifty.serve.http import CLIENT_LEFT, Message, Receive, Reply, Send, error_reply
from thrifty.serve.keys import OPEN, Keys
from thrifty.serve.logs import id_of, log_request

Answer = Callable[[Message, Receive, Send], Awaitable[None]]
REQUEST_ID = b"x-request-id"


class Gate:
    """Gives each answer the id of its request (``X-Request-ID``), and lets in who has a key.

    Args:
        keys: that are taken; None lets all in. Liveness and readiness are told to all, and so is the empty page.
        logs: whether each request is logged.
    """

    def __init__(self, keys: Keys | None = None, *, logs: bool = False) -> None:
        self.keys, self._logs = keys, logs

    def refusal(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> Reply | None:
        """Refuse a request with 401 as its protocol does; None lets it in."""
        if self.keys is None or path in OPEN:
            return None
        try:
            if not page.is_open(path, headers):
                self.keys.check(headers)
        except RequestError as error:
            return _refusal(method, path, error)
        return None

    def log(self, request_id: str, method: str, path: str, status: int, seconds: float, client: str) -> None:
        """Write a request's line, where requests are logged."""
        if self._logs:
            log_request(request_id, method, path, status, seconds, client)

    async def let_through(self, scope: Message, receive: Receive, send: Send, answer: Answer) -> None:
        """Answer a request, or refuse it."""
        begun = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = id_of(headers.get(REQUEST_ID))
        status = CLIENT_LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (REQUEST_ID, request_id.encode())]}
            await send(message)

        try:
            refusal = self.refusal(scope["method"], scope["path"], headers)
            if refusal is not None:
                await refusal.send(send_with_id)
                return
            await answer(scope, receive, send_with_id)
        finally:
            client = str((scope.get("client") or ("",))[0])
            self.log(request_id, scope["method"], scope["path"], status, time.perf_counter() - begun, client)


def _refusal(method: str, path: str, error: RequestError) -> Reply:
    header = (b"www-authenticate", b"Bearer")
    if openai.owns(method, path):
        from thrifty.serve.openai.replies import error_reply as openai_reply

        return openai_reply(error, header)
    reply = tfserving.error_reply(error) if tfserving.owns(path) and not oip.owns(path) else error_reply(error)
    return Reply(reply.status, reply.body, reply.content_type, headers=(*reply.headers, header))
