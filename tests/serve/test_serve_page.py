"""The page's requests: what is told with and without a key, headers that hold scripts off, cards and bills."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from made_bundles import pixels
from real_server import serving

from thrifty.export.bundle import Bundle
from thrifty.serve.asgi import App
from thrifty.serve.counted import Counted, count
from thrifty.serve.gate import Gate
from thrifty.serve.keys import Keys
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.serve.page.cards import figures, verdict
from thrifty.serve.page.tiles import tiles
from thrifty.spec import Compression, Verdict

KEY = "0123456789abcdef"
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
ASSETS = ("/page/report.css", "/page/page.css", "/page/page.js")


class Seen(HTMLParser):
    """What of a page could run or fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]


@pytest.fixture(scope="module")
def locked(pets: Bundle) -> Iterator[httpx.Client]:
    with (
        serving(App([pets], Limits(), gate=Gate(Keys([KEY])))) as url,
        httpx.Client(base_url=url, headers=BROWSER) as client,
    ):
        yield client


@pytest.mark.slow
def test_the_root_is_a_page_for_browsers_alone(client: httpx.Client) -> None:
    assert client.get("/", headers=BROWSER).headers["content-type"].startswith("text/html")
    assert client.head("/", headers=BROWSER).status_code == 200
    for accept in ("*/*", "application/json", ""):
        found = client.get("/", headers={"Accept": accept})
        assert (found.status_code, found.json()) == (404, {"error": "Not Found"})
    assert client.post("/", headers=BROWSER).status_code == 405
    assert client.post("/page/bill").status_code == 405
    assert client.get("/page/other").status_code == 404


@pytest.mark.slow
def test_nothing_inline_runs_and_nothing_comes_from_elsewhere(client: httpx.Client) -> None:
    found = client.get("/", headers=BROWSER)
    policy = dict(part.strip().split(" ", 1) for part in found.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    seen = Seen(found.text)
    assert "style" not in seen.tags
    assert not [name for _, name, _ in seen.attributes if name.startswith("on") or name == "style"]
    fetched = [value for _, name, value in seen.attributes if name in ("src", "href")]
    assert {each for each in fetched if each and each.startswith(("http", "//"))} == set()
    assert {f"/{each}" for each in fetched if each and each.startswith("page/")} == set(ASSETS)
    for path in ASSETS:
        asset = client.get(path)
        assert asset.status_code == 200
        assert asset.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in asset.text
        assert "innerHTML" not in asset.text


@pytest.mark.slow
def test_without_a_key_nothing_is_said_of_models(locked: httpx.Client) -> None:
    for path in ("/", *ASSETS):
        found = locked.get(path)
        assert found.status_code == 200
        assert "pets" not in found.text
        assert "resnet" not in found.text
    for path in ("/page/models", "/page/bill"):
        assert locked.get(path).status_code == 401
        assert locked.get(path, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert locked.get("/", headers={"Accept": "*/*"}).status_code == 401, "to what is no browser nothing is told"


@pytest.mark.slow
def test_cards_say_what_models_are_and_what_their_forms_take(client: httpx.Client, pets: Bundle) -> None:
    found = {each["name"]: each["versions"] for each in client.get("/page/models").json()["models"]}
    assert list(found) == ["critic", "pets", "poet"]
    assert [each["version"] for each in found["pets"]] == [2, 1]
    card = found["pets"][1]
    facts = dict(card["facts"])
    assert facts["Task"] == "classify, of images"
    assert facts["Model"] == "resnet8"
    assert facts["Computed by"] == "torch in fp32"
    assert facts["Trained on"] == "3 images; 2 more were held out"
    assert facts["Held-out data"] == "accuracy 50.0 %"
    assert "Compressed" not in facts
    size = sum((pets.folder / name).stat().st_size for name in pets.info.files)
    assert facts["Size"] == f"{size / 1024:.0f} KiB"
    assert (card["form"]["input"], card["form"]["kind"], card["labels"]) == ("image", "image", ["cat", "dog", "owl"])
    assert found["poet"][0]["form"]["writes"]


@pytest.mark.slow
def test_a_bill_counts_what_was_asked(pets: Bundle) -> None:
    body = {"instances": [pixels(1).tolist(), pixels(2).tolist()]}
    with serving(App([pets], Limits())) as url, httpx.Client(base_url=url) as client:
        for _ in range(3):
            assert client.post("/v1/models/pets:predict", json=body).status_code == 200
        assert client.post("/v1/models/pets:predict", json={"instances": [1]}).status_code == 400
        told = client.get("/page/bill").json()
    assert told["versions"] == {"pets:1": {"state": "ready", "reason": "", "served": True}}
    shown = {each["what"]: (each["figure"], each["more"]) for each in told["tiles"]["pets:1"]}
    assert shown["Requests"] == ("4", "3 answered")
    assert int(shown["Rows"][0]) >= 6
    assert shown["A thousand requests"][0].removeprefix("< ").startswith("$")
    assert shown["Answered within"][0].endswith("s")
    assert "W" in told["source"]


def test_what_was_counted_is_by_model_and_by_window() -> None:
    metrics = Metrics()
    metrics.request_done("a:1", "oip", 200, 0.5)
    before = count(metrics)["a:1"]
    metrics.batch_done("a:1", 3, 0.1, waited=0.0, cpu_seconds=2.0)
    for status in (200, 503, 499):
        metrics.request_done("a:1", "tfserving", status, 0.5)
    metrics.request_done("", "", 404, 0.1)
    found = count(metrics)
    assert list(found) == ["a:1"]
    now = found["a:1"]
    assert (now.requests, now.answered, now.cancelled, now.rows, now.rows_a_batch) == (4, 2, 1, 3, 3)
    assert 0 < now.usd < now.cpu_seconds < now.joules
    lately = now.since(before)
    assert (lately.requests, lately.answered, lately.cpu_seconds) == (3, 1, 2.0)


def test_figures_are_said_with_what_belongs_to_them() -> None:
    assert figures({"wer": 0.12, "cer": 0.034, "samples": 2620}) == (
        "character error rate 3.4 %, word error rate 12.0 %; 2,620 samples"
    )
    assert figures({"rmse": float("nan")}) == "root mean squared error nan"
    assert figures({}) == ""
    empty = {each["what"]: each for each in tiles(Counted(), [])}
    assert empty["Answered within"]["figure"] == empty["A thousand requests"]["figure"] == "–"
    writes = {each["what"]: each for each in tiles(Counted(texts=2, tokens=40), [])}
    assert (writes["Tokens written"]["figure"], writes["Tokens written"]["more"]) == ("40", "in 2 texts")


@pytest.mark.parametrize(("tested", "held"), [("within", "within what was allowed"), ("over", "more than was allowed")])
def test_a_compression_is_said_with_its_verdict(tested: Any, held: str) -> None:
    judged = Verdict(
        metric="accuracy", split="validation", rows=9000, reference=0.91, candidate=0.909, drop=0.001, low=-0.001,
        high=0.003, confidence=0.95, allowed=0.005, held="within", method="paired",
    )  # fmt: skip
    found = Compression.model_construct(
        moves=("openvino", "int8"),
        validation=judged,
        test=judged.model_copy(update={"split": "test", "rows": 800, "held": tested}),
    )
    assert verdict(found) == f"openvino + int8: accuracy 91.0 % before, 90.9 % after, on 800 test rows; {held}"
