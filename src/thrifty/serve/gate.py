"""What each request passes on its way in and out: its id, its key, its line in the log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import thrifty.serve.oip as oip
import thrifty.serve.openai as openai
import thrifty.serve.page as page
import thrifty.serve.tfserving as tfserving
from thrifty.errors import RequestError
from thrifty.serve.http import CLIENT_LEFT, Message, Receive, Reply, Send, error_reply
from thrifty.serve.keys import OPEN, Keys
from thrifty.serve.logs import id_of, log_request

Answer = Callable[[Message, Receive, Send], Awaitable[None]]


class Gate:
    """Gives each answer the id of its request (``X-Request-ID``), and lets in who has a key.

    Args:
        keys: that are taken; None lets all in. Liveness and readiness are told to all, and so is the empty page.
        logs: whether each request is logged.
    """

    def __init__(self, keys: Keys | None = None, *, logs: bool = False) -> None:
        self.keys, self._logs = keys, logs

    async def let_through(self, scope: Message, receive: Receive, send: Send, answer: Answer) -> None:
        """Answer a request, or refuse it with 401 as its protocol does."""
        begun = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = id_of(given)
        status = CLIENT_LEFT

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            await send(message)

        try:
            if self.keys is not None and scope["path"] not in OPEN:
                headers = dict(scope["headers"])
                try:
                    if not page.is_open(scope["path"], headers):
                        self.keys.check(headers)
                except RequestError as error:
                    await _refusal(scope["method"], scope["path"], error).send(send_with_id)
                    return
            await answer(scope, receive, send_with_id)
        finally:
            if self._logs:
                client = str((scope.get("client") or ("",))[0])
                log_request(request_id, scope["method"], scope["path"], status, time.perf_counter() - begun, client)


def _refusal(method: str, path: str, error: RequestError) -> Reply:
    header = (b"www-authenticate", b"Bearer")
    if openai.owns(method, path):
        from thrifty.serve.openai.replies import error_reply as openai_reply

        return openai_reply(error, header)
    reply = tfserving.error_reply(error) if tfserving.owns(path) and not oip.owns(path) else error_reply(error)
    return Reply(reply.status, reply.body, reply.content_type, headers=(*reply.headers, header))
