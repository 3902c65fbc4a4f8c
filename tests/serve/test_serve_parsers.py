"""Parsers of both protocols on anything at all: an answer or a told error, never a crash; the faults of JSON."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thrifty.errors import ThriftyError
from thrifty.export.bundle import Bundle
from thrifty.serve.json_text import JsonError, decode
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.models import Model, Models
from thrifty.serve.oip.binary import pack, unpack
from thrifty.serve.oip.rest import parse_infer
from thrifty.serve.tfserving.requests import parse_examples, parse_predict

NAMES = ["pets", "poet", "critic"]
SOME = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
words = st.sampled_from(
    ["instances", "inputs", "signature_name", "examples", "context", "b64", "image", "pixels", "prompt", "text", "name",
     "shape", "datatype", "data", "parameters", "outputs", "id", "binary_data_size", "binary_data_output", "max_tokens",
     "BYTES", "UINT8", "serving_default", "probabilities", "classification"]
)  # fmt: skip
anything = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=4), inner, max_size=5),
    max_leaves=20,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "instances": anything,
        "inputs": anything
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": words,
                    "datatype": words,
                    "shape": st.lists(st.integers(-1, 4), max_size=4) | anything,
                    "data": anything,
                    "parameters": anything,
                },
            ),
            max_size=3,
        ),
        "outputs": anything,
        "parameters": anything,
        "examples": anything,
        "signature_name": anything,
    },
)


@pytest.fixture(scope="module")
def models(pets: Bundle, poet: Bundle, critic: Bundle) -> dict[str, Model]:
    found = Models([pets, poet, critic], Limits(), Metrics())
    return {model.name: model for model in found}


def _told(parse: Any, *arguments: Any) -> None:
    """A parser gives rows, or an error of the protocol; anything else is raised."""
    try:
        ask = parse(*arguments)
    except ThriftyError as error:
        assert error.what
        assert getattr(error, "status", 400) in {400, 413}
    else:
        assert ask.rows


@pytest.mark.slow
@SOME
@given(name=st.sampled_from(NAMES), body=(requests | anything).map(lambda value: json.dumps(value).encode()))
def test_any_json_is_answered_or_told(models: dict[str, Model], name: str, body: bytes) -> None:
    _told(parse_predict, models[name], body)
    _told(parse_examples, models[name], body)
    _told(parse_infer, models[name], None, body)


@pytest.mark.slow
@SOME
@given(name=st.sampled_from(NAMES), body=st.binary(max_size=60), head=st.none() | st.binary(max_size=4))
def test_any_bytes_are_answered_or_told(models: dict[str, Model], name: str, body: bytes, head: bytes | None) -> None:
    _told(parse_predict, models[name], body)
    _told(parse_infer, models[name], head, body)
    _told(parse_infer, models[name], str(len(body) // 2).encode(), body)


@pytest.mark.parametrize("depth", [100, 900, 100_000])
@pytest.mark.parametrize("form", ["[%s]", '{"a":%s}', '{"instances":%s}', '{"inputs":%s}', '{"inputs":[{"data":%s}]}'])
def test_deep_bodies_are_told(models: dict[str, Model], form: str, depth: int) -> None:
    body = (form % ("[" * depth + "]" * depth)).encode()
    for parse, more in ((parse_predict, ()), (parse_examples, ()), (parse_infer, (None,))):
        with pytest.raises(ThriftyError):
            parse(models["pets"], *more, body)  # type: ignore[operator]


@pytest.mark.slow
@SOME
@given(value=anything)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    body = json.dumps(value, allow_nan=True).encode()
    assert json.dumps(decode(body, lenient=True)) == json.dumps(json.loads(body))
    assert json.dumps(decode(b" \n" + body + b" more", lenient=True)) == json.dumps(json.loads(body))


@pytest.mark.slow
@SOME
@given(value=anything, cut=st.integers(0, 60))
def test_a_fault_is_told_with_its_place(value: Any, cut: int) -> None:
    body = json.dumps(value).encode()[:cut]
    for lenient in (False, True):
        try:
            decode(body, lenient=lenient)
        except JsonError as error:
            assert error.what.endswith(".")
            assert 0 <= error.offset <= len(body)


FAULTS = {
    b"": ("The document is empty.", 0),
    b"  ": ("The document is empty.", 2),
    b"nul": ("Invalid value.", 0),
    b"[1,]": ("Invalid value.", 3),
    b"{": ("Missing a name for object member.", 1),
    b'{"a"}': ("Missing a colon after a name of object member.", 4),
    b'{"a":1 "b"': ("Missing a comma or } after an object member.", 7),
    b'["}", {"\\"": [1 2': ("Missing a comma or ] after an array element.", 16),
    b'["a': ("Missing a closing quotation mark in string.", 1),
    b'["\\x"]': ("Invalid escape character in string.", 2),
    b'["\\u12"]': ("Incorrect hex digit after \\u escape in string.", 3),
    b"\xff": ("Invalid value.", 0),
    b'["\xff"]': ("Invalid encoding in string.", 2),
    b"1 2": ("The document root must not be followed by other values.", 2),
    b'["\xc3\xa9", nul]': ("Invalid value.", 7),
}


@pytest.mark.parametrize("body", FAULTS)
def test_faults_are_told_in_rapidjsons_words(body: bytes) -> None:
    with pytest.raises(JsonError) as caught:
        decode(body)
    assert (caught.value.what, caught.value.offset) == FAULTS[body]


@pytest.mark.slow
@SOME
@given(texts=st.lists(st.binary(max_size=9), max_size=5), tail=st.binary(max_size=6), count=st.integers(0, 6))
def test_texts_after_their_lengths(texts: list[bytes], tail: bytes, count: int) -> None:
    raw = pack(texts)
    assert unpack("x", "BYTES", (len(texts),), memoryview(raw)) == texts
    for wrong, size in ((raw + tail, len(texts)), (raw, count), (tail, count), (raw[:-1], len(texts))):
        try:
            found = unpack("x", "BYTES", (size,), memoryview(wrong))
        except ThriftyError as error:
            assert "'x'" in error.what
        else:
            assert pack(found) == wrong and len(found) == size


def test_a_length_of_four_billion_is_told() -> None:
    with pytest.raises(ThriftyError, match="incomplete string data"):
        unpack("x", "BYTES", (1,), memoryview(struct.pack("<I", 2**32 - 1)))


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bombs_of_either_encoding_are_refused(client: httpx.Client, encoding: str) -> None:
    bomb = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding](bytes(64 * 2**20))
    for path in ("/v1/models/pets:predict", "/v2/models/pets/infer"):
        reply = client.post(path, content=bomb, headers={"Content-Encoding": encoding})
        assert reply.status_code == 413
        assert reply.json()["error"].startswith("The body is over 33554432 bytes")
