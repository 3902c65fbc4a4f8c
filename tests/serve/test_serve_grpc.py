"""tritonclient over gRPC against a real server: metadata, infer by raw and typed contents, the repository, errors."""

from __future__ import annotations

import json
import queue
import shutil
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from collector import collector
from made_bundles import LABELS, pixels, png, write_image_bundle

from thrifty import serve
from thrifty.errors import JobError
from thrifty.export.bundle import Bundle
from thrifty.serve.asgi import App
from thrifty.serve.batcher import FULL
from thrifty.serve.gate import Gate
from thrifty.serve.keys import Keys
from thrifty.serve.telemetry import Telemetry

pytest.importorskip("grpc", reason="the extra 'grpc' is not installed")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import InferenceServerException

from real_rpc import answering

import thrifty.serve.rpc as rpc_module
from thrifty.serve.oip.grpc.service import spoken
from thrifty.serve.rpc import RpcServer

pytestmark = pytest.mark.slow


@contextmanager
def calling(app: App) -> Iterator[tuple[Any, RpcServer]]:
    """A client of an application that is served over gRPC too, and the service."""
    with answering(app) as rpc:
        client = triton.InferenceServerClient(f"127.0.0.1:{rpc.port}")
        yield client, rpc
        client.close()


@pytest.fixture(scope="module")
def served(pets: Bundle, poet: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("repository")
    write_image_bundle(repository / "cats", name="cats", version=4)
    app = serve.app([pets, poet], repository=repository, limits=serve.Limits(body_bytes=200_000))
    with calling(app) as (client, rpc):
        yield SimpleNamespace(client=client, rpc=rpc, repository=repository)


def test_who_has_no_key_is_told_that_it_lives_and_nothing_else(pets: Bundle) -> None:
    key = "0123456789abcdef"
    with calling(App([pets], serve.Limits(), gate=Gate(Keys([key])))) as (client, _):
        assert client.is_server_live() and client.is_server_ready()
        for ask in (
            client.get_server_metadata,
            lambda **more: client.infer("pets", [tensor("pixels", pixels(1)[None], "UINT8")], **more),
        ):
            for headers in (None, {"authorization": "Bearer another key of mine"}):
                with pytest.raises(InferenceServerException, match="an API key is needed") as refused:
                    ask(headers=headers)
                assert "UNAUTHENTICATED" in str(refused.value)
            assert ask(headers={"authorization": f"Bearer {key}"})


def test_a_call_is_traced_with_its_parts(pets: Bundle) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with collector() as taker:
        with calling(App([pets], serve.Limits(), telemetry=Telemetry(taker.url, share=0.0))) as (client, _):
            client.infer("pets", [tensor("pixels", pixels(1)[None], "UINT8")], headers={"traceparent": parent})
            client.get_model_metadata("pets", headers={"traceparent": parent})
        spans = taker.spans
    (whole,) = (span for span in spans if span.parent_span_id.hex() == "b7ad6b7169203331")
    assert whole.name == "POST /inference.GRPCInferenceService/ModelInfer"
    parts = {span.name for span in spans if span.parent_span_id == whole.span_id}
    assert parts == {"decoding", "waiting", "computing", "encoding"}


def test_a_refusal_is_counted_as_shed(pets: Bundle) -> None:
    app = serve.app([pets], limits=serve.Limits(queue_rows=2, request_rows=2))
    with calling(app) as (client, _):
        (model,) = app.models
        model.batcher._queue.rows += 2  # as many as there is room for
        with pytest.raises(InferenceServerException, match=FULL):
            client.infer("pets", [tensor("pixels", pixels(1)[None], "UINT8")])
        assert app.metrics.shed.labels(model.label)._value.get() == 1
        model.batcher._queue.rows -= 2


@pytest.fixture
def asking(served: Any) -> Any:
    return served.client


def tensor(name: str, values: np.ndarray, datatype: str) -> Any:
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values)
    return given


def expected(pets: Bundle, *seeds: int) -> np.ndarray:
    return np.asarray(pets.form.probabilities(np.stack([pixels(seed) for seed in seeds])))


def test_health_and_metadata(asking: Any) -> None:
    assert asking.is_server_live() and asking.is_server_ready() and asking.is_model_ready("pets", "1")
    assert {"binary_tensor_data", "model_repository"} <= set(asking.get_server_metadata().extensions)
    found = asking.get_model_metadata("pets")
    assert [(each.name, each.datatype, list(each.shape)) for each in found.inputs] == [
        ("image", "BYTES", [-1]),
        ("pixels", "UINT8", [-1, 16, 16, 3]),
    ]
    assert [each.name for each in found.outputs] == ["probabilities", "label"]


def test_pixels_and_files(asking: Any, pets: Bundle) -> None:
    given = tensor("pixels", np.stack([pixels(1), pixels(2)]), "UINT8")
    answer = asking.infer("pets", [given], "1", request_id="r7")
    assert answer.get_response().id == "r7"
    assert np.allclose(answer.as_numpy("probabilities"), expected(pets, 1, 2), atol=1e-5)
    files = np.array([png(pixels(3))], dtype=np.object_)
    wanted = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput("probabilities", class_count=1)]
    answer = asking.infer("pets", [tensor("image", files, "BYTES")], outputs=wanted)
    best = int(expected(pets, 3).argmax())
    assert answer.as_numpy("label").tolist() == [LABELS[best].encode()]
    assert answer.as_numpy("probabilities")[0, 0].decode().split(":")[1:] == [str(best), LABELS[best]]


def test_options_of_prompts(asking: Any, poet: Bundle) -> None:
    prompt = np.array([b"the cat"], dtype=np.object_)
    asked = tensor("prompt", prompt, "BYTES")
    answer = asking.infer("poet", [asked], parameters={"max_tokens": 5, "seed": 2, "temperature": 0.5})
    wanted = poet.predict("the cat", max_tokens=5, seed=2, temperature=0.5)["completion"]
    assert answer.as_numpy("completion").tolist() == [wanted.encode()]


def test_typed_contents_are_answered_by_typed_contents(served: Any, pets: Bundle) -> None:
    import grpc
    from tritonclient.grpc import service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name="pets")
    given = request.inputs.add(name="pixels", datatype="UINT8", shape=[1, 16, 16, 3])
    given.contents.uint_contents.extend(pixels(1).ravel().tolist())
    with grpc.insecure_channel(f"127.0.0.1:{served.rpc.port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(request)
        assert not answer.raw_output_contents
        assert np.allclose(answer.outputs[0].contents.fp32_contents, expected(pets, 1)[0], atol=1e-5)
        given.contents.uint_contents[0] = 256
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "256 Type: Number is not of expected type: uint8" in caught.value.details()
        request.raw_input_contents.append(b"1")
        with pytest.raises(grpc.RpcError, match="contents field must not be specified"):
            stub.ModelInfer(request)


WRONG: dict[str, tuple[Any, str]] = {
    "model": (lambda ask: ask.infer("nope", [_one()]), r"StatusCode.NOT_FOUND.*'nope' is not found"),
    "version": (lambda ask: ask.infer("pets", [_one()], "7"), r"NOT_FOUND.*'pets' version 7 is not found"),
    "version no number": (lambda ask: ask.get_model_metadata("pets", "x"), r"NOT_FOUND.*version x is not found"),
    "input": (lambda ask: ask.infer("pets", [tensor("x", pixels(1)[None], "UINT8")]), "unexpected inference input 'x'"),
    "type": (
        lambda ask: ask.infer("pets", [tensor("pixels", pixels(1)[None].astype("f4"), "FP32")]),
        "data-type is 'FP32', but model 'pets' expects 'UINT8'",
    ),
    "shape": (lambda ask: ask.infer("pets", [tensor("pixels", pixels(1), "UINT8")]), "unexpected shape for input"),
    "output": (
        lambda ask: ask.infer("pets", [_one()], outputs=[triton.InferRequestedOutput("x")]),
        "unexpected inference output 'x'",
    ),
    "two": (lambda ask: ask.infer("pets", [_one(), _one()]), "expected 1 inputs but got 2 inputs"),
    "too large": (
        lambda ask: ask.infer("pets", [tensor("image", np.array([bytes(300_000)], dtype=np.object_), "BYTES")]),
        "RESOURCE_EXHAUSTED",
    ),
}


def _one() -> Any:
    return tensor("pixels", pixels(1)[None], "UINT8")


@pytest.mark.parametrize("case", WRONG)
def test_errors_are_told(asking: Any, case: str) -> None:
    ask, says = WRONG[case]
    with pytest.raises(InferenceServerException, match=says):
        ask(asking)


def test_models_come_and_go(served: Any) -> None:
    ask = served.client

    def state(name: str) -> list[tuple[str, str]]:
        return [(each.version, each.state) for each in ask.get_model_repository_index().models if each.name == name]

    assert state("cats") == [("", "UNAVAILABLE")]
    ask.load_model("cats")
    assert state("cats") == [("4", "READY")]
    assert ask.infer("cats", [_one()]).as_numpy("probabilities").shape == (1, 3)
    ask.unload_model("cats")
    assert state("cats") == [("4", "UNAVAILABLE")]
    with pytest.raises(InferenceServerException, match="'cats' is not found"):
        ask.infer("cats", [_one()])
    for name in ("../pets", "nope", ".", ""):
        with pytest.raises(InferenceServerException, match="failed to poll from model repository"):
            ask.load_model(name)


def test_a_call_that_is_given_up_is_not_computed(served: Any) -> None:
    many = np.array([b"the cat"] * 200, dtype=np.object_)
    with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
        served.client.infer("poet", [tensor("prompt", many, "BYTES")], client_timeout=0.05)
    model = served.rpc._app.models.find("poet", None)
    until = time.monotonic() + 30
    while model.batcher.waiting_rows:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_taken_port_is_told(served: Any, pets: Bundle) -> None:
    with pytest.raises(JobError, match="cannot serve gRPC on 127"):
        serve.run([pets], port=0, grpc_port=served.rpc.port)


def test_our_messages_are_the_protocols(served: Any) -> None:
    """Field numbers, kinds and labels against Triton's own descriptors; nested messages are top-level ones here."""
    theirs: dict[str, Any] = {}

    def walk(message: Any) -> None:
        theirs[message.name] = message
        for each in message.nested_types:
            walk(each)

    for message in service_pb2.DESCRIPTOR.message_types_by_name.values():
        walk(message)
    for name, found in spoken(served.rpc._app).protos.messages.items():
        for field in found.DESCRIPTOR.fields:
            other = theirs[name.rpartition(".")[2]].fields_by_name[field.name]
            assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
            assert bool(field.containing_oneof) == bool(other.containing_oneof)


class Heard:
    """What a stream of tritonclient is told, in its order."""

    def __init__(self) -> None:
        self.told: queue.Queue[Any] = queue.Queue()

    def __call__(self, result: Any, error: Any) -> None:
        self.told.put(error if result is None else result)

    def next(self) -> Any:
        return self.told.get(timeout=60)


@contextmanager
def streaming(client: Any, **more: Any) -> Iterator[Heard]:
    heard = Heard()
    client.start_stream(heard, **more)
    try:
        yield heard
    finally:
        client.stop_stream()


def test_a_stream_is_answered_in_its_order(asking: Any, pets: Bundle, poet: Bundle) -> None:
    prompts = np.array([b"the cat"] * 20, dtype=np.object_)
    with streaming(asking) as heard:
        options = {"max_tokens": 12, "seed": 1}
        asking.async_stream_infer("poet", [tensor("prompt", prompts, "BYTES")], request_id="0", parameters=options)
        for seed in range(1, 30):  # more than are computed ahead, and sooner computed than the first
            asking.async_stream_infer("pets", [tensor("pixels", pixels(seed)[None], "UINT8")], request_id=str(seed))
        answers = [heard.next() for _ in range(30)]
    assert [each.get_response().id for each in answers] == [str(number) for number in range(30)]
    wanted = poet.predict("the cat", max_tokens=12, seed=1)["completion"].encode()
    assert answers[0].as_numpy("completion").tolist() == [wanted] * 20
    for seed, answer in list(enumerate(answers))[1:]:
        assert np.allclose(answer.as_numpy("probabilities"), expected(pets, seed), atol=1e-5)
        assert answer.get_response().parameters["triton_final_response"].bool_param


def test_a_request_of_a_stream_that_fails_says_so_in_its_place(asking: Any, pets: Bundle) -> None:
    with streaming(asking) as heard:
        for name, given in (("pets", _one()), ("nope", _one()), ("pets", tensor("x", pixels(1)[None], "UINT8"))):
            asking.async_stream_infer(name, [given])
        asking.async_stream_infer("pets", [_one()], outputs=[triton.InferRequestedOutput("label")])
        first, unknown, wrong, last = (heard.next() for _ in range(4))
    assert np.allclose(first.as_numpy("probabilities"), expected(pets, 1), atol=1e-5)
    assert isinstance(unknown, InferenceServerException) and "'nope' is not found" in str(unknown)
    assert isinstance(wrong, InferenceServerException) and "unexpected inference input 'x'" in str(wrong)
    assert last.as_numpy("label").shape == (1,)


def test_a_stream_without_a_key_and_one_too_many_are_refused(pets: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_module, "_STREAMS", 1)
    key = "0123456789abcdef"
    with calling(App([pets], serve.Limits(), gate=Gate(Keys([key])))) as (client, rpc):
        with streaming(client) as heard:
            assert "UNAUTHENTICATED" in str(heard.next())
        known = {"authorization": f"Bearer {key}"}
        with triton.InferenceServerClient(f"127.0.0.1:{rpc.port}") as other, streaming(other, headers=known) as heard:
            other.async_stream_infer("pets", [_one()])
            assert heard.next().as_numpy("probabilities").shape == (1, 3)
            with streaming(client, headers=known) as refused:
                assert "RESOURCE_EXHAUSTED" in str(told := refused.next()) and "1 streams already" in str(told)
        with streaming(client, headers=known) as heard:
            client.async_stream_infer("pets", [_one()])
            assert heard.next().as_numpy("probabilities").shape == (1, 3)


def test_a_stream_that_waits_does_not_keep_the_server_from_its_end(pets: Bundle) -> None:
    heard = Heard()
    with answering(serve.app([pets])) as rpc:
        client = triton.InferenceServerClient(f"127.0.0.1:{rpc.port}")
        client.start_stream(heard)
        client.async_stream_infer("pets", [_one()])
        assert heard.next().as_numpy("probabilities").shape == (1, 3)
        began = time.monotonic()
    assert time.monotonic() - began < 15
    client.close()
    assert heard.told.empty(), "the stream ended as one does"


def test_a_message_is_waited_for_only_of_who_may_ask(pets: Bundle) -> None:
    import grpc

    key, more = "0123456789abcdef", threading.Event()
    limits = serve.Limits(body_seconds=0.6)
    with (
        calling(App([pets], limits, gate=Gate(Keys([key])))) as (_, rpc),
        grpc.insecure_channel(f"127.0.0.1:{rpc.port}") as channel,
    ):
        # on the wire a call of one message is one of a stream of them
        ask = channel.stream_unary(
            "/inference.GRPCInferenceService/ServerMetadata",
            request_serializer=service_pb2.ServerMetadataRequest.SerializeToString,
            response_deserializer=service_pb2.ServerMetadataResponse.FromString,
        )

        def late(seconds: float) -> Iterator[Any]:
            more.wait(seconds)
            yield service_pb2.ServerMetadataRequest()

        known = [("x-api-key", key)]
        for given, metadata, code in (
            (late(20), [], grpc.StatusCode.UNAUTHENTICATED),
            (late(20), known, grpc.StatusCode.DEADLINE_EXCEEDED),
            (iter(()), known, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            began = time.monotonic()
            with pytest.raises(grpc.RpcError) as refused:
                ask(given, metadata=metadata, timeout=20)
            assert refused.value.code() == code, refused.value
            assert time.monotonic() - began < 10
        assert ask(late(0.4), metadata=known, timeout=20).name == "thrifty"
        rpc._receiving.room = 0
        with pytest.raises(grpc.RpcError, match="holds as many requests as it may") as refused:
            ask(late(5), metadata=known, timeout=20)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        more.set()


def test_rest_loads_and_unloads_too(pets: Bundle, tmp_path: Path) -> None:
    import httpx
    from real_server import running

    write_image_bundle(tmp_path / "repository" / "cats" / "1", name="own_name", version=9)
    write_image_bundle(tmp_path / "repository" / "cats" / "2" / "bundle", name="own_name", version=9, seed=3)
    write_image_bundle(tmp_path / "outside", name="outside")
    (tmp_path / "repository" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "repository" / "broken").mkdir()
    shutil.copytree(tmp_path / "outside", tmp_path / "repository" / "broken", dirs_exist_ok=True)
    weights = next((tmp_path / "repository" / "broken").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    newer = tmp_path / "repository" / "newer"
    shutil.copytree(tmp_path / "outside", newer)
    said = json.loads((newer / "bundle.json").read_text())
    (newer / "bundle.json").write_text(json.dumps({**said, "format": 99}))
    missing = tmp_path / "repository" / "missing"
    shutil.copytree(tmp_path / "outside", missing)
    next(missing.glob("*.safetensors")).unlink()
    with running([pets], repository=tmp_path / "repository") as url, httpx.Client(base_url=url, timeout=60) as client:
        index = client.post("/v2/repository/index", json={}).json()
        assert [each["name"] for each in index] == ["pets", "broken", "cats", "missing", "newer"]
        assert client.post("/v2/repository/models/cats/load").status_code == 200
        assert client.get("/v2/models/cats").json()["versions"] == ["1", "2"]
        ready = client.post("/v2/repository/index", json={"ready": True}).json()
        assert [(each["name"], each["version"]) for each in ready] == [("cats", "1"), ("cats", "2"), ("pets", "1")]
        assert client.post("/v2/repository/models/cats/unload").status_code == 200
        assert client.get("/v2/models/cats").status_code == 404
        for name, status, says in (
            ("cats/../../outside", 404, "Not Found"),
            ("..%2Foutside", 404, "failed to poll"),
            ("link", 404, "failed to poll"),
            ("nope", 404, "failed to poll"),
            ("broken", 400, "its sha256 is not the one in bundle.json"),
            ("missing", 400, "failed to load 'missing', "),
            ("newer", 400, "'newer/bundle.json' has bundle format 99, this thrifty reads"),
        ):
            reply = client.post(f"/v2/repository/models/{name}/load")
            assert reply.status_code == status, (name, reply.text)
            assert says in reply.json()["error"], name
        for body, says in (
            (b"{", "failed to parse"),
            (b'{"parameters": {"config": "{}"}}', "load parameter 'config' is not supported"),
            (b'{"parameters": 1}', "'parameters' must be an object"),
        ):
            reply = client.post("/v2/repository/models/cats/load", content=body)
            assert (reply.status_code, says in reply.json()["error"]) == (400, True)
        assert client.post("/v2/repository/models/cats/unload").status_code == 404
        assert client.get("/v2/repository/index").status_code == 405


def test_the_repository_is_off_unless_given(client: Any) -> None:
    for path in ("index", "models/pets/unload"):
        reply = client.post(f"/v2/repository/{path}")
        assert reply.status_code == 403
        assert reply.json()["error"].startswith("The model repository is off")
