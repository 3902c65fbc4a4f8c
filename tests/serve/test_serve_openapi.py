"""What /openapi.json says is so: schemathesis asks for it, small, and finds no crash and no answer that is not told."""

from __future__ import annotations

import warnings
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


def test_the_document_names_the_models(client: httpx.Client) -> None:
    told = client.get("/openapi.json").json()
    assert told["openapi"].startswith("3.1")
    assert {"/v1/models/pets:predict", "/v1/models/pets:classify", "/v2/models/poet/infer"} <= set(told["paths"])
    assert "/v1/models/poet:classify" not in told["paths"]
    assert "/v2/repository/index" not in told["paths"]
    assert client.post("/openapi.json").status_code == 405


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["pets", "critic"])
def test_what_is_asked_at_random_is_answered_as_told(client: httpx.Client, url: str, model: str) -> None:
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    asked: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if f"/models/{model}" not in operation.path:
            continue
        asked.append(operation.path)

        @settings(
            max_examples=6,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            case.call_and_validate(base_url=url, checks=CHECKS)

        ask()
    assert len(asked) == 8
