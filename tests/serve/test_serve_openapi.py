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


def ask(operation: Any, url: str, examples: int = 6) -> None:
    """Ask one operation at random; what it answers is held to the document."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def one(case: Any) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS)

    one()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["pets", "critic"])
def test_what_is_asked_at_random_is_answered_as_told(client: httpx.Client, url: str, model: str) -> None:
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    operations = [found.ok() for found in schema.get_all_operations()]
    asked = [operation for operation in operations if f"/models/{model}" in operation.path]
    for operation in asked:
        ask(operation, url)
    assert len(asked) == 8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wrong", ["status", "field", "type"])
def test_a_document_that_is_wrong_is_found_out(client: httpx.Client, url: str, wrong: str) -> None:
    told = client.get("/openapi.json").json()
    path, verb = {
        "status": ("/v1/models/pets:predict", "post"),
        "field": ("/v1/models/pets", "get"),
        "type": ("/v2/models/pets", "get"),
    }[wrong]
    responses = told["paths"][path][verb]["responses"]
    if wrong == "status":
        del responses["400"]
    else:
        schema = {"type": "object", "required": ["nowhere"]} if wrong == "field" else {"type": "array"}
        responses["200"]["content"]["application/json"]["schema"] = schema
    told["paths"] = {path: {verb: told["paths"][path][verb]}}
    (found,) = schemathesis.openapi.from_dict(told).get_all_operations()
    with pytest.raises(BaseException, match=r"(?i)status code|nowhere|array"):
        ask(found.ok(), url, examples=20)
