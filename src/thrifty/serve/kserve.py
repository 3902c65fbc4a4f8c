"""Files to serve a bundle by KServe on Kubernetes: a runtime, a service of it, and a Dockerfile for its image.

Fields are those of KServe's own resources (`serving.kserve.io` v1alpha1 ServingRuntime, v1beta1 InferenceService):
pkg/apis/serving/v1alpha1/servingruntime_types.go, pkg/apis/serving/v1beta1/{predictor,predictor_model,component}.go;
ports as its service reconciler reads them: the first becomes port 80, each further one keeps its number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from thrifty import __version__
from thrifty.errors import JobError
from thrifty.export.check import read_info
from thrifty.export.folder import replacing
from thrifty.serve.footprint import Footprint, measure
from thrifty.serve.keys import VARIABLE
from thrifty.serve.limits import Limits
from thrifty.spec import BUNDLE_FORMAT, BundleInfo

MANIFEST, DOCKERFILE = "kserve.yaml", "Dockerfile"
MODELS = "/mnt/models"  # where KServe's storage initializer puts what storageUri names
HTTP_PORT, GRPC_PORT = 8080, 9000
LIVE, READY = "/v2/health/live", "/v2/health/ready"
_MIB = 2**20
_STEP_BYTES = 64 * _MIB
_ROOM = 1.25  # times what was measured
_START_SECONDS = 300  # for weights to be read and a first row to be answered
_NAME_CHARACTERS = 40  # KServe makes longer names of it, which may have 63
_USER = 1000
# packages of an engine, beside what every bundle needs
_EXTRAS = {"torch": "grpc", "aoti": "grpc", "openvino": "grpc,openvino", "onnx": "grpc,onnx"}


def write_kserve(
    bundle: Path, folder: Path, *, image: str | None = None, storage_uri: str | None = None
) -> dict[str, Any]:
    """Measure what a bundle takes when it is served, and write a manifest and a Dockerfile for it.

    Args:
        bundle: folder of the bundle.
        folder: to write to; what is there is replaced.
        image: of the server, with its registry; ``thrifty:VERSION`` when left out.
        storage_uri: where the bundle's folder will lie; a claim ``models`` when left out.

    Returns:
        ``path`` of the manifest, ``image``, ``storage_uri``, ``memory_bytes``, ``cores``, and ``secret`` of API keys.

    Raises:
        JobError: a storage URI that is none, or memory cannot be measured on this system.
        BundleError: the bundle is damaged, or does not answer.
    """
    info = read_info(bundle)
    image = image or f"thrifty:{__version__}"
    storage_uri = storage_uri or f"pvc://models/{_dns(info.name)}"
    if not re.match(r"[a-z][a-z0-9+.-]*://\S+$", storage_uri):
        raise JobError(
            f"storage URI '{storage_uri}' is none", mend="Say where the bundle's folder will lie: s3://bucket/folder."
        )
    footprint = measure(bundle)
    told = manifest(info, footprint, image=image, storage_uri=storage_uri)
    with replacing(folder, "KServe's files") as fresh:
        (fresh / MANIFEST).write_text(_HEAD.format(**_words(info)) + yaml.safe_dump_all(told, sort_keys=False))
        (fresh / DOCKERFILE).write_text(dockerfile(info.engine))
    return {
        "path": str(folder / MANIFEST),
        "image": image,
        "storage_uri": storage_uri,
        "memory_bytes": _memory_bytes(info, footprint),
        "cores": footprint.cores,
        "secret": _words(info)["secret"],
    }


def command(
    folder: str = MODELS, *, host: str = "0.0.0.0", port: int = HTTP_PORT, grpc_port: int = GRPC_PORT
) -> list[str]:
    """Return what a container runs, word by word."""
    return [
        "thrifty", "serve", folder, "--host", host, "--port", str(port), "--grpc-port", str(grpc_port),
        "--log-format", "json",
    ]  # fmt: skip


def manifest(info: BundleInfo, footprint: Footprint, *, image: str, storage_uri: str) -> list[dict[str, Any]]:
    """Describe the runtime and the service of a bundle, as Kubernetes reads them.

    Args:
        info: of the bundle.
        footprint: what its server took.
        image: of the server.
        storage_uri: where the bundle's folder lies.
    """
    words = _words(info)
    amount = {"cpu": str(footprint.cores), "memory": f"{_memory_bytes(info, footprint) // _MIB}Mi"}
    form = {"name": "thrifty", "version": str(BUNDLE_FORMAT)}
    container = {
        "name": "kserve-container",
        "image": image,
        "command": command()[:1],
        "args": command()[1:],
        "env": [
            {"name": "OMP_NUM_THREADS", "value": str(footprint.cores)},
            {"name": "THRIFTY_CACHE", "value": "/tmp/thrifty"},
            {"name": VARIABLE, "valueFrom": {"secretKeyRef": {"name": words["secret"], "key": "keys"}}},
        ],
        "ports": [
            {"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "h2c", "containerPort": GRPC_PORT, "protocol": "TCP"},
        ],
        "startupProbe": _probe(LIVE, period=2, failures=_START_SECONDS // 2),
        "livenessProbe": _probe(LIVE, period=10, failures=3),
        "readinessProbe": _probe(READY, period=2, failures=3),
        # equal, so that no neighbour takes cores or memory that answers in time were promised on
        "resources": {"requests": amount, "limits": dict(amount)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    runtime = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": words["runtime"]},
        "spec": {
            "annotations": {"prometheus.kserve.io/port": str(HTTP_PORT), "prometheus.kserve.io/path": "/metrics"},
            "supportedModelFormats": [{**form, "autoSelect": True}],
            "protocolVersions": ["v1", "v2", "grpc-v1", "grpc-v2"],
            "multiModel": False,
            "containers": [container],
        },
    }
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        # Knative takes one port of a container, and there are two
        "metadata": {"name": words["name"], "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "terminationGracePeriodSeconds": round(Limits().drain_seconds) + 10,
                "model": {
                    "modelFormat": form,
                    "runtime": words["runtime"],
                    "protocolVersion": "v2",
                    "storageUri": storage_uri,
                },
            }
        },
    }
    return [runtime, service]


def dockerfile(engine: str) -> str:
    """Write how an image is built whose server can compute a bundle of this engine; from this project's sources."""
    return _DOCKERFILE.format(extras=_EXTRAS[engine], user=_USER, version=__version__)


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    told = {"path": path, "port": HTTP_PORT}
    return {"httpGet": told, "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}


def _memory_bytes(info: BundleInfo, footprint: Footprint) -> int:
    """What was measured with some room, the bodies that the server may hold, and a writer's keys and values."""
    limits = Limits()
    most = _ROOM * footprint.memory_bytes + limits.held_bytes
    most += limits.cache_bytes if info.task == "language" else 0
    return -(-round(most) // _STEP_BYTES) * _STEP_BYTES


def _words(info: BundleInfo) -> dict[str, str]:
    name = _dns(info.name)
    return {"name": name, "runtime": f"thrifty-{name}", "secret": f"{name}-api-keys", "served": info.name}


def _dns(name: str) -> str:
    """Return a name as Kubernetes takes it: small letters, digits and hyphens, a letter first.

    >>> _dns("My_Pets 2"), _dns("2cats")
    ('my-pets-2', 'm-2cats')
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    whole = plain if plain[:1].isalpha() else f"m-{plain}".rstrip("-")
    return whole[:_NAME_CHARACTERS].rstrip("-")


_HEAD = """\
# The bundle '{served}' by KServe. Before: build the image (Dockerfile beside this file), put the bundle's folder where
# storageUri says, and make the API keys, without which no container starts:
#   kubectl create secret generic {secret} --from-literal=keys="$(openssl rand -hex 16)"
# Memory and cores are what a server of it took where this was written. Before KServe 0.16 the mode is RawDeployment.
"""

_DOCKERFILE = """\
# A server of thrifty's bundles. In the folder of its sources: docker build -f {{this file}} -t thrifty:{version} .
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 libsndfile1 \\
 && rm -rf /var/lib/apt/lists/* && useradd --uid {user} --create-home thrifty
WORKDIR /opt/thrifty
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir '.[{extras}]' --constraint constraints.txt
USER {user}
ENV THRIFTY_CACHE=/tmp/thrifty
EXPOSE 8080 9000
CMD ["thrifty", "serve", "/mnt/models", "--host", "0.0.0.0", "--port", "8080", "--grpc-port", "9000"]
"""
