"""What a server that speaks an inference protocol must answer, as tables that run against any: `check_server`.

``python -m thrifty.testing.conformance http://127.0.0.1:8501 --protocol oip --model pets``
"""

from __future__ import annotations

from typing import Any

from thrifty.errors import unknown_name
from thrifty.testing.conformance.oip import rows as oip_rows
from thrifty.testing.conformance.openai import rows as openai_rows
from thrifty.testing.conformance.table import Answer, Result, Row, Server, judge
from thrifty.testing.conformance.tfs import rows as tfs_rows

__all__ = ["PROTOCOLS", "Answer", "Result", "Row", "Server", "check_server"]

PROTOCOLS = {"tfs": tfs_rows, "oip": oip_rows, "openai": openai_rows}


def check_server(url: str, protocol: str, *, model: str | None = None, sample: Any = None) -> list[Result]:
    """Ask a server for every row of a protocol's table.

    Args:
        url: of the server.
        protocol: ``tfs``, ``oip`` or ``openai``.
        model: to ask; one that the server lists when None.
        sample: what the model answers: an instance of ``tfs``, the inputs of ``oip``, a prompt of ``openai``; made up
            from what the server says of the model when None.

    Raises:
        JobError: there is no such protocol.
        OSError: there is no server.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    server = Server(url)
    return judge(server, PROTOCOLS[protocol](server, model, sample))
