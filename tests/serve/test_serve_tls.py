"""TLS: a certificate that cannot be used is refused before anything listens; real clients of HTTP and gRPC speak it."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import warnings
from pathlib import Path

import httpx
import numpy as np
import pytest
from made_bundles import pixels

from thrifty import api, serve
from thrifty.errors import JobError
from thrifty.export.bundle import Bundle
from thrifty.serve.server import Server, config_of
from thrifty.serve.tls import read_certificate

pytest.importorskip("cryptography", reason="the package 'cryptography', which makes certificates, is not installed")
from made_certificates import write_certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_certificate(tmp_path_factory.mktemp("certificate"))


def test_none_is_no_certificate() -> None:
    assert read_certificate(None, None) is None


def test_a_certificate_is_read_whole_and_its_key_shown_to_nobody(files: tuple[Path, Path]) -> None:
    read = read_certificate(*files)
    assert read is not None
    assert (read.chain, read.key) == tuple(each.read_bytes() for each in files)
    assert "PRIVATE" not in repr(read)


def test_what_is_no_certificate_is_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = files
    other = write_certificate(tmp_path / "other")
    locked = write_certificate(tmp_path / "locked", passphrase=b"a secret")
    (tmp_path / "noise.pem").write_bytes(b"no certificate\n")
    for given, says in (
        ((cert, None), "--tls-cert is given without --tls-key"),
        ((None, key), "--tls-key is given without --tls-cert"),
        ((tmp_path / "nowhere.pem", key), "--tls-cert '.*nowhere.pem' cannot be read: .*No such file"),
        ((cert, tmp_path), "--tls-key '.*' cannot be read: .*Is a directory"),
        ((tmp_path / "noise.pem", key), "noise.pem' and '.*' are no certificate and its key"),
        ((cert, other[1]), "are no certificate and its key: .*MISMATCH"),
        (locked, r"locked by a passphrase\. .*openssl pkey"),
    ):
        with pytest.raises(JobError, match=f"(?i){says}"):
            read_certificate(*given)


def test_nothing_is_served_without_what_was_asked_for(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with pytest.raises(JobError, match="--tls-cert is given without"):
        serve.run([tmp_path / "no bundle"], port=0, tls_cert=files[0])
    with pytest.raises(JobError, match="--tls-cert and --tls-key cannot be had with --engine ray"):
        api.serve([], host="127.0.0.1", port=0, engine="ray", tls_cert=files[0], tls_key=files[1])


@pytest.mark.slow
def test_http_and_grpc_speak_it_and_nothing_else(pets: Bundle, files: tuple[Path, Path]) -> None:
    pytest.importorskip("grpc", reason="the extra 'grpc' is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
        from tritonclient.utils import InferenceServerException
    from thrifty.serve.rpc import RpcServer

    tls = read_certificate(*files)
    app = serve.app([pets])
    rpc, ready = RpcServer(app, host="127.0.0.1", port=0, tls=tls), threading.Event()
    server = Server(config_of(app, app.limits, tls), app, ready.set, rpc)
    expected = np.asarray(pets.form.probabilities(pixels(1)[None]))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        at = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert ready.wait(60)
            trusted = ssl.create_default_context(cafile=files[0])
            with httpx.Client(base_url=f"https://{at}", verify=trusted, timeout=30) as client:
                asked = {"signature_name": "pixels", "instances": [pixels(1).tolist()]}
                # larger than what TLS sends at once, both ways
                for _ in range(3):
                    answer = client.post("/v1/models/pets:predict", content=json.dumps(asked))
                    (row,) = answer.json()["predictions"]
                    assert np.allclose(row["probabilities"], expected[0], atol=1e-5)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"https://{at}/v2/health/live", verify=ssl.create_default_context())
            with pytest.raises(httpx.RemoteProtocolError):
                httpx.get(f"http://{at}/v2/health/live")

            given = triton.InferInput("pixels", [1, *pixels(1).shape], "UINT8")
            given.set_data_from_numpy(pixels(1)[None])
            where = f"localhost:{rpc.port}"
            with triton.InferenceServerClient(where, ssl=True, root_certificates=str(files[0])) as known:
                assert np.allclose(known.infer("pets", [given]).as_numpy("probabilities"), expected, atol=1e-5)
            with triton.InferenceServerClient(where) as plain, pytest.raises(InferenceServerException):
                plain.is_server_live(client_timeout=5)
        finally:
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()
