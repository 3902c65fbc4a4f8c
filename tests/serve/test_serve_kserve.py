"""KServe's files: their fields are those of its resources, and what they name runs and answers their probes.

Fields and types are written down from kserve/kserve, pkg/apis/serving/v1alpha1/servingruntime_types.go and
pkg/apis/serving/v1beta1/{predictor,predictor_model,component}.go (those of the package kserve 0.21.0 are the same), and
Kubernetes' core/v1 Container; a field that is not there is one too many.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from thrifty import api
from thrifty.errors import JobError
from thrifty.export.bundle import Bundle
from thrifty.serve import kserve
from thrifty.serve.footprint import Footprint
from thrifty.serve.limits import Limits

SOON = 60.0
ROOT = Path(__file__).parents[2]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


Port = Annotated[int, Field(ge=1, le=65535)]
# RFC 1123 as Kubernetes takes it; InferenceService: a letter first
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(m|Ki|Mi|Gi)?$")]


class HttpGet(Strict):
    path: str
    port: Port
    host: str | None = None
    scheme: Literal["HTTP", "HTTPS"] | None = None


class Probe(Strict):
    http_get: HttpGet
    initial_delay_seconds: int = 0
    period_seconds: Annotated[int, Field(ge=1)]
    timeout_seconds: Annotated[int, Field(ge=1)]
    success_threshold: int = 1
    failure_threshold: Annotated[int, Field(ge=1)]


class SecretKey(Strict):
    name: Name
    key: str
    optional: bool = False


class ValueFrom(Strict):
    secret_key_ref: SecretKey


class Variable(Strict):
    name: str
    value: str | None = None
    value_from: ValueFrom | None = None


class ContainerPort(Strict):
    name: Annotated[str, Field(max_length=15, pattern=r"^[a-z0-9-]+$")]
    container_port: Port
    protocol: Literal["TCP", "UDP", "SCTP"]


class Amount(Strict):
    cpu: Quantity
    memory: Quantity


class Resources(Strict):
    requests: Amount
    limits: Amount


class Capabilities(Strict):
    add: list[str] = []
    drop: list[str] = []


class Security(Strict):
    allow_privilege_escalation: bool
    privileged: bool
    run_as_non_root: bool
    capabilities: Capabilities


class Container(Strict):
    name: Literal["kserve-container"]  # servingruntime: the one that a model is served by
    image: str
    command: list[str]
    args: list[str]
    env: list[Variable]
    ports: list[ContainerPort]
    startup_probe: Probe
    liveness_probe: Probe
    readiness_probe: Probe
    resources: Resources
    security_context: Security


class SupportedFormat(Strict):
    name: str
    version: str
    auto_select: bool
    priority: Annotated[int, Field(ge=1)] | None = None


class RuntimeSpec(Strict):
    annotations: dict[str, str]
    supported_model_formats: list[SupportedFormat]
    protocol_versions: list[Literal["v1", "v2", "grpc-v1", "grpc-v2"]]
    multi_model: bool
    containers: Annotated[list[Container], Field(min_length=1, max_length=1)]


class Metadata(Strict):
    name: Name
    annotations: dict[str, str] = {}


class ServingRuntime(Strict):
    api_version: Literal["serving.kserve.io/v1alpha1"]
    kind: Literal["ServingRuntime"]
    metadata: Metadata
    spec: RuntimeSpec


class ModelFormat(Strict):
    name: str
    version: str


class ModelSpec(Strict):
    model_format: ModelFormat
    runtime: Name
    protocol_version: Literal["v1", "v2", "grpc-v1", "grpc-v2"]
    storage_uri: str


class Predictor(Strict):
    min_replicas: Annotated[int, Field(ge=0)]
    termination_grace_period_seconds: int
    model: ModelSpec


class ServiceSpec(Strict):
    predictor: Predictor


class InferenceService(Strict):
    api_version: Literal["serving.kserve.io/v1beta1"]
    kind: Literal["InferenceService"]
    metadata: Metadata
    spec: ServiceSpec


def read(text: str) -> tuple[ServingRuntime, InferenceService]:
    runtime, service = yaml.safe_load_all(text)
    return ServingRuntime.model_validate(runtime), InferenceService.model_validate(service)


@settings(max_examples=15, deadline=None)
@given(name=st.text(min_size=1, max_size=80), cores=st.integers(1, 512), memory=st.integers(2**20, 2**40))
def test_whatever_a_bundle_is_called_its_manifest_is_one(pets: Bundle, name: str, cores: int, memory: int) -> None:
    info = pets.info.model_copy(update={"name": name})
    told = kserve.manifest(info, Footprint(memory, cores), image="us.example/thrifty:1", storage_uri="s3://b/pets")
    runtime, service = read(yaml.safe_dump_all(told))
    (container,) = runtime.spec.containers
    assert int(container.resources.limits.memory.removesuffix("Mi")) * 2**20 > memory
    assert container.resources.limits == container.resources.requests
    model = service.spec.predictor.model
    assert model.runtime == runtime.metadata.name
    (form,) = runtime.spec.supported_model_formats
    assert (form.name, form.version) == (model.model_format.name, model.model_format.version)
    assert model.protocol_version in runtime.spec.protocol_versions
    assert service.spec.predictor.termination_grace_period_seconds > Limits().drain_seconds


def test_a_language_model_gets_memory_for_keys_and_values(pets: Bundle, poet: Bundle) -> None:
    plain, written = (
        read(yaml.safe_dump_all(kserve.manifest(info, Footprint(2**28, 1), image="i", storage_uri="s3://b/c")))[0]
        for info in (pets.info, poet.info)
    )
    small, large = (
        int(each.spec.containers[0].resources.limits.memory.removesuffix("Mi")) for each in (plain, written)
    )
    assert large - small == Limits().cache_bytes // 2**20


def test_the_image_takes_what_the_project_has() -> None:
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for engine in ("torch", "openvino", "onnx", "aoti"):
        text = kserve.dockerfile(engine)
        (named,) = re.findall(r"'\.\[(.+)\]'", text)
        assert set(named.split(",")) <= set(extras)
        copied = [word for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for word in line.split()]
        assert all((ROOT / each).exists() for each in copied)
        assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE), "a number: else Kubernetes cannot tell it is not root"
        (ran,) = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
        assert yaml.safe_load(ran) == kserve.command()[: len(yaml.safe_load(ran))]


def test_a_storage_uri_that_is_none_is_refused(pets: Bundle, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="storage URI 'models/pets' is none"):
        api.export_kserve(pets.folder, storage_uri="models/pets", folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def written(pets: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("kserve") / "out"
    report = api.export_kserve(pets.folder, storage_uri="s3://models/pets", folder=folder)
    assert report["path"] == str(folder / "kserve.yaml")
    assert 2**27 < report["memory_bytes"] < 4 * 2**30
    yield folder


@pytest.mark.slow
def test_the_command_of_the_manifest_answers_its_probes(written: Path, pets: Bundle) -> None:
    runtime, service = read((written / "kserve.yaml").read_text())
    assert (written / "Dockerfile").read_text().startswith("# ")
    assert service.spec.predictor.model.storage_uri == "s3://models/pets"
    (container,) = runtime.spec.containers
    http, rpc = (port.container_port for port in container.ports)
    ports = {str(number): str(_free()) for number in (http, rpc)}
    places = {**ports, kserve.MODELS: str(pets.folder), "0.0.0.0": "127.0.0.1"}
    command = [sys.executable, "-m", *container.command, *(places.get(word, word) for word in container.args)]
    secret = "0123456789abcdef"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    for variable in container.env:
        environment[variable.name] = secret if variable.value_from else str(variable.value)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            base = f"http://127.0.0.1:{ports[str(http)]}"
            for probe in (container.startup_probe, container.liveness_probe, container.readiness_probe):
                assert probe.http_get.port == http
                _wait(f"{base}{probe.http_get.path}", process)
            body: dict[str, Any] = {"instances": [{"pixels": [[[0, 0, 0]] * 16] * 16}]}
            assert httpx.post(f"{base}/v1/models/pets:predict", json=body, timeout=SOON).status_code == 401
            key = {"Authorization": f"Bearer {secret}"}
            assert httpx.post(f"{base}/v1/models/pets:predict", json=body, headers=key).status_code == 200
            assert httpx.get(f"{base}/v2/models/pets", headers=key).json()["name"] == "pets"
            with socket.create_connection(("127.0.0.1", int(ports[str(rpc)])), timeout=SOON):
                pass
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON) == 0
        finally:
            process.kill()


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + SOON
    while True:
        assert process.poll() is None and time.monotonic() < until
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
