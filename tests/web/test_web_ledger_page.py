"""Where predictions were wrong: by model and device, with a picture."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from made_site import Shown, add_run

pytestmark = pytest.mark.slow


def test_an_empty_ledger_says_so(site: Shown) -> None:
    assert "No run has ended yet" in site.client.get("/ledger").text


def test_groups_come_the_furthest_off_first(site: Shown, runs: Path) -> None:
    for number in range(3):
        add_run(runs, f"good-{number}", steps=1)
        add_run(runs, f"slow-{number}", steps=1, slower=3.0, model="resnet18")
    add_run(runs, "under way", steps=1, status="running")
    html = site.client.get("/ledger").text
    assert "Of 6 runs that ended, time was within a quarter of the prediction in 50 %" in html
    groups = re.findall(r'<th scope="row"><bdi>([\w]+)</bdi></th><td><bdi>', html)
    assert groups == ["resnet18", "resnet8"]
    worst = re.findall(r'<a href="/runs/\d+"><bdi>([\w-]+)</bdi></a></th>', html)
    assert sorted(worst[:3]) == ["slow-0", "slow-1", "slow-2"]
    assert "×3.1" in html
    data = re.search(r'id="figures">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    (figure,) = json.loads(data[1])
    assert [round(x, 1) for x in figure["data"][1]["x"]] == [3.1, 1.0]
    assert figure["layout"]["annotations"][0]["text"].startswith("resnet18 · Intel Xeon")


@pytest.mark.parametrize(("quantity", "says"), [("joules", "energy"), ("peak_bytes", "peak memory"), ("<b>", "time")])
def test_each_quantity_has_its_picture(shared: Shown, numbers: dict[str, int], quantity: str, says: str) -> None:
    html = shared.client.get("/ledger", params={"quantity": quantity}).text
    assert f"How far {says} was off" in html and "<b>" not in html
