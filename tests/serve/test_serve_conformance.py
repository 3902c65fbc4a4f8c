"""The server holds every row of the conformance table."""

from __future__ import annotations

import httpx
import pytest
from conformance import ROWS, Row, ask


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(client: httpx.Client, row: Row) -> None:
    status, answer = ask(client, row)
    assert answer == row.answer
    assert status == row.status
