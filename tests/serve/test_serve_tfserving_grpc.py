"""TensorFlow Serving's gRPC services against a real server, by classes of the same .proto files in another pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_bundles import LABELS, pixels, png, write_table_bundle

from thrifty import serve
from thrifty.errors import RequestError
from thrifty.export.bundle import Bundle, load_bundle

pytest.importorskip("grpc", reason="the extra 'grpc' is not installed")
import grpc
from real_rpc import answering

from thrifty.serve.tfserving.grpc.service import protos
from thrifty.serve.tfserving.grpc.tensors import KINDS, fill, values_of

PROTOS = protos()
MESSAGES = PROTOS.messages
ROWS: list[dict[str, Any]] = [{"age": 39, "job": "cook"}, {"age": None, "job": "astronaut"}]
Code = grpc.StatusCode


class Client:
    """Stubs of the services, as a generator would write them."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._methods = {
            method.name: self._channel.unary_unary(
                f"/{service}/{method.name}",
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.answer.FromString,
            )
            for service, methods in PROTOS.services.items()
            for method in methods
        }

    def __call__(self, method: str, request: Any) -> Any:
        return self._methods[method](request, timeout=30)

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory, pets: Bundle, poet: Bundle) -> dict[str, Bundle]:
    folder: Path = tmp_path_factory.mktemp("rows")
    write_table_bundle(folder / "rich", labels=("poor", "rich"), name="rich")
    write_table_bundle(folder / "pay", labels=(), name="pay")
    return {"pets": pets, "poet": poet} | {name: load_bundle(folder / name) for name in ("rich", "pay")}


@pytest.fixture(scope="module")
def ask(bundles: dict[str, Bundle]) -> Iterator[Client]:
    limits = serve.Limits(request_rows=8)
    with answering(serve.app(list(bundles.values()), limits=limits, labels=["stable=1"])) as rpc:
        client = Client(rpc.port)
        yield client
        client.close()


def message(name: str, **fields: Any) -> Any:
    return MESSAGES[f"tensorflow.serving.{name}"](**fields)


def tensor(kind: str, shape: tuple[int, ...], *, content: bytes = b"", values: Any = ()) -> Any:
    made = MESSAGES["tensorflow.TensorProto"](tensor_content=content)
    made.dtype = made.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name[kind].number
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    getattr(made, KINDS[kind].field).extend(values)
    return made


def predict(name: str, inputs: dict[str, Any], **spec: Any) -> Any:
    request = message("PredictRequest")
    request.model_spec.name = name
    for key, value in spec.items():
        if key == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, key, value)
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(value)
    return request


def examples(request: str, name: str, rows: list[dict[str, Any]], **context: Any) -> Any:
    made = message(request)
    made.model_spec.name = name
    held = made.input.example_list_with_context if context else made.input.example_list
    for row in rows:
        _features(held.examples.add(), row)
    if context:
        _features(held.context, context)
    return made


def _features(example: Any, row: dict[str, Any]) -> None:
    for key, value in row.items():
        feature = example.features.feature[key]
        if isinstance(value, bytes | str):
            feature.bytes_list.value.append(value if isinstance(value, bytes) else value.encode())
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.extend([] if value is None else [value])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["content", "values"])
def test_pixels_and_files(ask: Client, pets: Bundle, form: str) -> None:
    both = np.stack([pixels(1), pixels(2)])
    given_as = {"content": both.tobytes()} if form == "content" else {"values": both.ravel().tolist()}
    answer = ask("Predict", predict("pets", {"pixels": tensor("DT_UINT8", both.shape, **given_as)}, version=1))
    expected = np.asarray(pets.form.probabilities(both))
    assert np.allclose(np.reshape(answer.outputs["probabilities"].float_val, (2, 3)), expected, atol=1e-5)
    assert [each.size for each in answer.outputs["probabilities"].tensor_shape.dim] == [2, 3]
    assert list(answer.outputs["label"].string_val) == [LABELS[each].encode() for each in expected.argmax(1)]
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("pets", 1)
    assert answer.model_spec.signature_name == "serving_default"

    file = png(pixels(3))
    texts = (
        {"content": bytes([len(file) & 127 | 128, len(file) >> 7]) + file} if form == "content" else {"values": [file]}
    )
    request = predict("pets", {"image": tensor("DT_STRING", (1,), **texts)}, version_label="stable")
    request.output_filter.append("label")
    answer = ask("Predict", request)
    assert dict(answer.outputs).keys() == {"label"}
    best = int(np.asarray(pets.form.probabilities(pixels(3)[None])).argmax())
    assert answer.outputs["label"].string_val[0] == LABELS[best].encode()


@pytest.mark.slow
def test_options_of_prompts(ask: Client, poet: Bundle) -> None:
    options = {
        "max_tokens": tensor("DT_INT32", (), values=[5]),
        "seed": tensor("DT_INT64", (1,), content=(2).to_bytes(8, "little")),
        "temperature": tensor("DT_FLOAT", (), values=[0.5]),
    }
    asked = predict("poet", {"prompt": tensor("DT_STRING", (1,), values=[b"the cat"]), **options})
    answer = ask("Predict", asked).outputs["completion"].string_val
    assert answer[0].decode() == poet.predict("the cat", max_tokens=5, seed=2, temperature=0.5)["completion"]


@pytest.mark.slow
def test_rows_of_tables(ask: Client, bundles: dict[str, Bundle]) -> None:
    columns = {
        "age": tensor("DT_DOUBLE", (2,), values=[39.0, float("nan")]),
        "job": tensor("DT_STRING", (2,), values=[b"cook", b"astronaut"]),
    }
    wanted = [bundles["pay"].predict(row)["value"] for row in ROWS]
    assert list(ask("Predict", predict("pay", columns)).outputs["value"].float_val) == pytest.approx(wanted, rel=1e-5)
    told = ask("Regress", examples("RegressionRequest", "pay", ROWS))
    assert [each.value for each in told.result.regressions] == pytest.approx(wanted, rel=1e-5)
    told = ask("Classify", examples("ClassificationRequest", "rich", [{"age": 39}], job="cook"))
    (found,) = told.result.classifications
    scores = bundles["rich"].predict(ROWS[0])["probabilities"]
    assert {each.label: each.score for each in found.classes} == pytest.approx(scores, rel=1e-5)
    assert told.model_spec.name == "rich"


def several(*tasks: tuple[str, str, str], **row: Any) -> Any:
    """A request for tasks by model, method and signature, of one row."""
    request = message("MultiInferenceRequest")
    for name, method, signature in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = name, signature
    if row:
        _features(request.input.example_list.examples.add(), row)
    return request


@pytest.mark.slow
def test_one_input_goes_to_several_signatures(ask: Client, bundles: dict[str, Bundle]) -> None:
    told = ask("MultiInference", several(("rich", "classify", ""), ("rich", "classify", "row"), age=39, job="cook"))
    scores = bundles["rich"].predict(ROWS[0])["probabilities"]
    assert [each.model_spec.signature_name for each in told.results] == ["serving_default", "row"]
    for each in told.results:
        assert each.WhichOneof("result") == "classification_result"
        (found,) = each.classification_result.classifications
        assert {one.label: one.score for one in found.classes} == pytest.approx(scores, rel=1e-5)
        assert (each.model_spec.name, each.model_spec.version.value) == ("rich", 1)
    (told,) = ask("MultiInference", several(("pay", "regress", ""), age=39, job="cook")).results
    (found,) = told.regression_result.regressions
    assert found.value == pytest.approx(bundles["pay"].predict(ROWS[0])["value"], rel=1e-5)


@pytest.mark.slow
def test_files_are_classified(ask: Client, pets: Bundle) -> None:
    told = ask("Classify", examples("ClassificationRequest", "pets", [{"image": png(pixels(1))}]))
    (found,) = told.result.classifications
    assert [each.label for each in found.classes] == list(LABELS)
    expected = np.asarray(pets.form.probabilities(pixels(1)[None]))[0]
    assert np.allclose([each.score for each in found.classes], expected, atol=1e-5)


@pytest.mark.slow
def test_status_and_metadata(ask: Client) -> None:
    request = message("GetModelStatusRequest")
    request.model_spec.name = "pets"
    (found,) = ask("GetModelStatus", request).model_version_status
    assert (found.version, found.state, found.status.error_code) == (1, 30, 0)
    request = message("GetModelMetadataRequest", metadata_field=["signature_def"])
    request.model_spec.name = "pets"
    told = ask("GetModelMetadata", request)
    packed = told.metadata["signature_def"]
    assert packed.type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signatures = message("SignatureDefMap")
    signatures.ParseFromString(packed.value)
    default = signatures.signature_def["serving_default"]
    assert default.method_name == "tensorflow/serving/predict"
    assert (default.inputs["image"].dtype, default.outputs["probabilities"].dtype) == (7, 1)
    assert [each.size for each in signatures.signature_def["pixels"].inputs["pixels"].tensor_shape.dim] == [
        -1,
        16,
        16,
        3,
    ]
    assert (told.model_spec.name, told.model_spec.version.value) == ("pets", 1)


ONE = tensor("DT_UINT8", (1, 16, 16, 3), values=[7])
TEXT = tensor("DT_STRING", (1,), values=[b"x"])
WRONG: dict[str, tuple[str, Any, Any, str]] = {
    "no spec": ("Predict", message("PredictRequest"), Code.INVALID_ARGUMENT, "Missing ModelSpec"),
    "model": ("Predict", predict("nope", {}), Code.NOT_FOUND, "Servable not found for request: Latest(nope)"),
    "version": (
        "Predict", predict("pets", {}, version=7), Code.NOT_FOUND, "Servable not found for request: Specific(pets, 7)",
    ),
    "label": (
        "Predict", predict("pets", {}, version_label="new"), Code.INVALID_ARGUMENT,
        "Unrecognized servable version label: new",
    ),
    "signature": (
        "Predict", predict("pets", {}, signature_name="x"), Code.FAILED_PRECONDITION,
        'Serving signature key "x" not found.',
    ),
    "nothing": (
        "Predict", predict("pets", {}), Code.INVALID_ARGUMENT,
        "input size does not match signature: 0!=1 len({}) != len({image}). Sent extra: {}. "
        "Missing but required: {image}.",
    ),
    "name": (
        "Predict", predict("pets", {"x": ONE}), Code.INVALID_ARGUMENT,
        "input tensor alias not found in signature: x. Inputs expected to be in the set {image,pixels}.",
    ),
    "two": (
        "Predict", predict("pets", {"image": TEXT, "pixels": ONE}), Code.INVALID_ARGUMENT,
        "input size does not match signature: 2!=1",
    ),
    "type": (
        "Predict", predict("pets", {"pixels": tensor("DT_FLOAT", (1, 16, 16, 3))}), Code.INVALID_ARGUMENT,
        "Expected input pixels to be uint8 but get float.",
    ),
    "shape": (
        "Predict", predict("pets", {"pixels": tensor("DT_UINT8", (2, 3))}), Code.INVALID_ARGUMENT,
        "Expected input pixels to have shape [-1,16,16,3] but get [2,3].",
    ),
    "content": (
        "Predict", predict("pets", {"pixels": tensor("DT_UINT8", (1, 16, 16, 3), content=b"1")}),
        Code.INVALID_ARGUMENT, "tensor parsing error: pixels",
    ),
    "content of texts": (
        "Predict", predict("pets", {"image": tensor("DT_STRING", (1,), content=b"\xff\xff")}), Code.INVALID_ARGUMENT,
        "tensor parsing error: image",
    ),
    "no pixel": (
        "Predict", predict("pets", {"pixels": tensor("DT_UINT8", (1, 16, 16, 3), values=[256])}),
        Code.INVALID_ARGUMENT, "tensor parsing error: pixels",
    ),
    "rows": (
        "Predict", predict("pets", {"image": tensor("DT_STRING", (10**9,), values=[b"x"])}), Code.INVALID_ARGUMENT,
        "Task size 1000000000 is larger than maximum input batch size 8",
    ),
    "uneven columns": (
        "Predict",
        predict("pay", {"age": tensor("DT_DOUBLE", (2,)), "job": TEXT}), Code.INVALID_ARGUMENT,
        "Batching Run() input tensors must have equal 0th-dimension size",
    ),
    "option": (
        "Predict", predict("poet", {"prompt": TEXT, "max_tokens": TEXT}), Code.INVALID_ARGUMENT,
        "Expected input max_tokens to be one number but get string [1].",
    ),
    "no image": ("Predict", predict("pets", {"image": TEXT}), Code.INVALID_ARGUMENT, "image 0: "),
    "method": (
        "Regress", examples("RegressionRequest", "pets", [{"image": b"x"}]), Code.INVALID_ARGUMENT,
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: tensorflow/serving/predict",
    ),
    "no examples": (
        "Classify", examples("ClassificationRequest", "pets", []), Code.INVALID_ARGUMENT, "Input is empty.",
    ),
    "example": (
        "Classify", examples("ClassificationRequest", "pets", [{"x": 1}]), Code.INVALID_ARGUMENT,
        'An example must be {"image"',
    ),
    "no field": (
        "GetModelMetadata", message("GetModelMetadataRequest", model_spec={"name": "pets"}), Code.INVALID_ARGUMENT,
        "GetModelMetadataRequest must specify at least one metadata_field",
    ),
    "field": (
        "GetModelMetadata",
        message("GetModelMetadataRequest", model_spec={"name": "pets"}, metadata_field=["x"]), Code.INVALID_ARGUMENT,
        "Metadata field x is not supported",
    ),
    "no tasks": ("MultiInference", several(), Code.INVALID_ARGUMENT, "Missing ModelSpec"),
    "two models": (
        "MultiInference", several(("pay", "regress", ""), ("rich", "classify", ""), age=1), Code.INVALID_ARGUMENT,
        "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
    ),
    "signature twice": (
        "MultiInference", several(("pay", "regress", ""), ("pay", "regress", "serving_default"), age=1),
        Code.INVALID_ARGUMENT, "Duplicate evaluation of signature: serving_default",
    ),
    "method of a task": (
        "MultiInference", several(("pay", "predict", ""), age=1), Code.UNIMPLEMENTED,
        "Unsupported signature method_name: tensorflow/serving/predict",
    ),
    "task that the model cannot": (
        "MultiInference", several(("pay", "classify", ""), age=1), Code.INVALID_ARGUMENT,
        "Expected classification signature method_name",
    ),
    "status": (
        "GetModelStatus", message("GetModelStatusRequest", model_spec={"name": "nope"}), Code.NOT_FOUND,
        "Could not find any versions of model nope",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_errors_are_told(ask: Client, case: str) -> None:
    method, request, code, says = WRONG[case]
    with pytest.raises(grpc.RpcError) as caught:
        ask(method, request)
    assert (caught.value.code(), caught.value.details()[: len(says)]) == (code, says)


@pytest.mark.slow
def test_outputs_that_there_are_not(ask: Client) -> None:
    for names, says in (
        (["x"], "Outputs expected to be in the set {label,probabilities}."),
        (["label"] * 2, "duplicate"),
    ):
        request = predict("pets", {"pixels": ONE})
        request.output_filter.extend(names)
        with pytest.raises(grpc.RpcError, match=says):
            ask("Predict", request)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_texts_are_read_as_content_and_as_values(texts: list[bytes]) -> None:
    content = b"".join(map(_varint, map(len, texts))) + b"".join(texts)
    shape = (len(texts),)
    assert values_of("x", tensor("DT_STRING", shape, content=content), shape) == texts
    assert values_of("x", tensor("DT_STRING", shape, values=texts), shape) == texts


@given(st.binary(min_size=1, max_size=40), st.integers(0, 6))
def test_content_that_is_none_is_refused(content: bytes, count: int) -> None:
    """Whatever it is: texts whose lengths add up, or the error."""
    try:
        found = values_of("x", tensor("DT_STRING", (count,), content=content), (count,))
    except RequestError as error:
        assert str(error) == "tensor parsing error: x."
    else:
        assert len(found) == count
        assert content.endswith(b"".join(found))


@given(st.sampled_from(["DT_FLOAT", "DT_INT64", "DT_UINT8", "DT_DOUBLE"]), st.lists(st.integers(0, 200), max_size=6))
def test_numbers_that_are_left_out_are_as_the_last(kind: str, numbers: list[int]) -> None:
    found = values_of("x", tensor(kind, (2, 3), values=numbers), (2, 3))
    filled = (numbers + [numbers[-1] if numbers else 0] * 6)[:6]
    assert np.ravel(found).tolist() == filled
    raw = np.array(filled, KINDS[kind].dtype).tobytes()
    assert np.array_equal(values_of("x", tensor(kind, (2, 3), content=raw), (2, 3)), found)


def test_what_is_written_is_read() -> None:
    from thrifty.serve.oip.tensors import Tensor

    for datatype, values in (("FP32", np.array([[1.5, 2.0]], "f4")), ("BYTES", ["é", "b"])):
        proto = MESSAGES["tensorflow.TensorProto"]()
        shape = values.shape if isinstance(values, np.ndarray) else (len(values),)
        fill(proto, Tensor("x", datatype, shape, values))
        found = values_of("x", proto, shape)
        wanted = values if isinstance(values, np.ndarray) else [each.encode() for each in values]
        assert np.array_equal(found, wanted)


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)
