"""Spans of requests, as a real collector of OTLP over HTTP gets them; and one that is dead, slow or not installed."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import time
from typing import Any

import httpx
import pytest
from collector import collector
from made_bundles import pixels
from real_server import serving

from thrifty.errors import JobError, MissingExtraError
from thrifty.export.bundle import Bundle
from thrifty.serve.asgi import App
from thrifty.serve.limits import Limits
from thrifty.serve.telemetry import Telemetry

PREDICT = "/v1/models/pets:predict"
BODY = {"instances": [pixels(1).tolist(), pixels(2).tolist()]}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}"


def said(span: Any) -> dict[str, Any]:
    return {each.key: each.value.int_value or each.value.string_value for each in span.attributes}


@pytest.mark.slow
def test_a_request_is_told_with_its_parts_in_the_clients_trace(pets: Bundle, poet: Bundle) -> None:
    with collector() as taker:
        with (
            serving(App([pets, poet], Limits(), telemetry=Telemetry(taker.url, share=0.0))) as url,
            httpx.Client(base_url=url) as client,
        ):
            sampled, not_sampled = ({"traceparent": PARENT.format(flags=flags)} for flags in ("01", "00"))
            assert client.post(PREDICT, json=BODY, headers=sampled).status_code == 200
            assert client.post(PREDICT, json=BODY, headers=not_sampled).status_code == 200
            assert client.post(PREDICT, json={"instances": [1]}, headers=sampled).status_code == 400
            assert client.post(PREDICT, json=BODY, headers={"traceparent": "nonsense"}).status_code == 200
            assert client.get("/metrics", headers=sampled).status_code == 200
            asked = {"model": "poet", "prompt": "the cat", "max_tokens": 5}
            assert client.post("/v1/completions", json=asked, headers=sampled).status_code == 200
        # what is left is sent as the server ends
        spans = taker.spans
    assert (taker.services, taker.paths) == ({"thrifty"}, {"/v1/traces"})
    assert {span.trace_id.hex() for span in spans} == {"0af7651916cd43dd8448eb211c80319c"}
    whole = [span for span in spans if span.parent_span_id.hex() == "b7ad6b7169203331"]
    assert sorted((span.name, said(span)["http.response.status_code"]) for span in whole) == [
        ("POST /v1/completions", 200), (f"POST {PREDICT}", 200), (f"POST {PREDICT}", 400),
    ]  # fmt: skip
    by_status = {said(span)["http.response.status_code"]: span for span in whole if span.name.endswith(":predict")}
    parts = {span.name: span for span in spans if span.parent_span_id == by_status[200].span_id}
    assert set(parts) == {"reading", "decoding", "waiting", "computing", "encoding"}
    assert said(parts["computing"]) == {"thrifty.batch_rows": 2, "thrifty.rows": 2}
    assert said(by_status[200])["thrifty.model"] == "pets:1"
    order = [parts[name] for name in ("reading", "decoding", "waiting", "computing", "encoding")]
    times = [by_status[200].start_time_unix_nano]
    times += [at for span in order for at in (span.start_time_unix_nano, span.end_time_unix_nano)]
    times += [by_status[200].end_time_unix_nano]
    assert times == sorted(times)
    assert abs(times[0] / 1e9 - time.time()) < 60
    (writes,) = (span for span in whole if span.name == "POST /v1/completions")
    written = {span.name: said(span) for span in spans if span.parent_span_id == writes.span_id}
    assert written["computing"]["thrifty.tokens"] <= 5
    assert {"waiting", "encoding"} <= set(written)


@pytest.mark.slow
def test_a_dead_or_slow_collector_neither_slows_nor_fails_a_request(
    pets: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with collector(pause_s=2.0) as slow:
        for at in ("http://127.0.0.1:9", slow.url):
            telemetry = Telemetry(at, share=1.0)
            with (
                caplog.at_level(logging.ERROR),
                serving(App([pets], Limits(), telemetry=telemetry)) as url,
                httpx.Client(base_url=url) as client,
            ):
                took = []
                for _ in range(150):  # six spans each: enough for the first batch to be on its way
                    begun = time.monotonic()
                    assert client.post(PREDICT, json={"instances": BODY["instances"][:1]}).status_code == 200
                    took.append(time.monotonic() - begun)
                assert sorted(took)[len(took) // 2] < 0.5
                begun = time.monotonic()
            assert time.monotonic() - begun < 20, "the server ends although nobody takes its spans"
    assert not [each for each in caplog.records if each.name == "thrifty.serve"]


def test_what_is_no_collector_or_no_share_is_named() -> None:
    for url in ("localhost:4318", "ftp://host/x", "http://", "http://host:0", "http://host:x", ""):
        with pytest.raises(JobError, match=r"is no collector of OpenTelemetry\. Write its URL"):
            Telemetry(url)
    with pytest.raises(JobError, match=r"share of 1\.5"):
        Telemetry("http://127.0.0.1:4318", share=1.5)


def test_a_missing_extra_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'thrifty\[otel\]'"):
        Telemetry("http://127.0.0.1:4318")


@pytest.mark.slow
def test_without_the_flag_nothing_of_it_is_imported() -> None:
    probe = textwrap.dedent(
        """
        import sys
        import thrifty.serve.asgi, thrifty.serve.server, thrifty.serve.telemetry, thrifty.serve.live
        print([name for name in sys.modules if name.startswith(("opentelemetry", "rich", "jinja2"))])
        """
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
