"""The pages in a real browser: by mouse and by keyboard, wide and narrow, light and dark, while a real run trains."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_runs import make_plan
from made_site import Shown, add_run, showing
from test_web_plan_page import offer, proposal, write
from test_web_studies import make_study
from two_languages import english_left

from thrifty.spec.proposal import Machine
from thrifty.web.plan_page import told

sys.path.insert(0, str(Path(__file__).parent.parent))
import forked

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SOON_MS = 30_000
HOSTILE = "<img src=x onerror=alert(1)>'\"&amp;"
REDRAW_MS = 200
DRAWN = "!document.querySelector('.plot:not([data-drawn])')"
SHAPES = ((1280, "light"), (390, "light"), (390, "dark"), (1280, "dark"))
# what a screen reader would say of it is nothing
UNNAMED = """all => all.filter(
    each => !(each.getAttribute('aria-label') || each.labels?.length || each.textContent.trim() || each.title)
).map(each => each.outerHTML)"""
STEPS = "Number(document.querySelector('.measured').textContent.replaceAll(',', ''))"


@contextmanager
def opened(
    chromium: Any, site: Shown, path: str = "/", *, token: bool = True, expected: str = "", **context: Any
) -> Iterator[Any]:
    """Open a page as its user does; nothing may be complained of but what is expected, nothing asked of others."""
    with ExitStack() as stack:
        place = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        stack.callback(place.close)
        page = place.new_page()
        page.set_default_timeout(SOON_MS)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda asked: None if asked.url.startswith((site.url, "data:")) else complaints.append(asked.url)
        )
        page.goto(f"{site.url}{path}" + (f"#token={site.site.token}" if token else ""))
        yield page
        assert [each for each in complaints if not expected or expected not in each] == []


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """Pages over runs of each status, a study, a job, and a name that means harm."""
    folder = tmp_path_factory.mktemp("full")
    runs = folder / "runs"
    add_run(runs, "digits")
    add_run(runs, "digits-wider", batch=64, accuracy=0.9722, slower=1.4)
    add_run(runs, "killed", status="interrupted", steps=700)
    add_run(runs, HOSTILE.replace("/", ""), status="failed", steps=40)
    for number in range(4):
        add_run(runs, f"resnet18-{number}", model="resnet18", slower=1.0 + number, accuracy=0.9 + number / 100)
    add_run(runs, "now", status="running", steps=900)
    make_study(runs / "search")
    write(folder / "job.yaml", {"name": "digits", "data": {"kind": "image", "path": "digits"}, "model": "mlp-small"})
    with showing(runs, folder) as site:
        yield site


def until(page: Any, holds: str) -> None:
    """Wait for a condition; the page's policy lets Playwright evaluate no string by itself, again and again."""
    end = time.monotonic() + SOON_MS / 1000
    while not page.evaluate(holds):
        assert time.monotonic() < end, holds
        page.wait_for_timeout(20)


def looks_right(page: Any, width: int, scheme: str) -> None:
    """What holds of every page in every shape."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 28)")
    assert page.eval_on_selector_all("a, button, input:not([type=hidden]), select, iframe", UNNAMED) == []
    identifiers = page.eval_on_selector_all("[id]", "all => all.map(each => each.id)")
    assert len(identifiers) == len(set(identifiers))
    assert page.locator("h1").count() == 1
    spoken = page.get_attribute("html", "data-language")
    assert (page.get_attribute("html", "lang"), spoken) in (("en", "en"), ("zh-Hans", "zh"))
    assert all(page.eval_on_selector_all("[role=img], [role=region]", "all => all.map(each => each.ariaLabel)"))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("runs", "/"),
        ("compare", "/compare?run=1&run=2&run=3"),
        ("done", "/runs/1"),
        ("course", "/runs/3"),
        ("running", "/runs/9"),
        ("hostile", "/runs/4"),
        ("plan", "/plan"),
        ("ledger", "/ledger"),
        ("studies", "/studies"),
        ("served", "/served"),
        ("missing", "/runs/77"),
    ],
)
def test_each_page_in_each_shape(chromium: Any, full: Shown, tmp_path: Path, name: str, path: str) -> None:
    # the browser's console tells a status of 404 itself
    with opened(chromium, full, path, expected="404" if name == "missing" else "") as page:
        for width, scheme in SHAPES:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            if name not in ("plan",):
                until(page, DRAWN)
            page.wait_for_timeout(150)
            page.screenshot(path=tmp_path / f"{name}-{width}-{scheme}.png", full_page=name != "done")
            looks_right(page, width, scheme)
        if name == "done":
            page.frame_locator("iframe").get_by_text("of this run").wait_for()
            assert page.eval_on_selector("iframe", "each => each.getBoundingClientRect().height") > 500


@pytest.mark.parametrize("path", ["/", "/compare?run=1&run=2&run=3", "/runs/3", "/runs/9", "/ledger", "/studies"])
def test_one_switch_turns_every_page_to_chinese(chromium: Any, full: Shown, tmp_path: Path, path: str) -> None:
    with opened(chromium, full, path) as page:
        until(page, DRAWN)
        assert page.get_attribute("html", "lang") == "en"
        before = page.title()
        page.get_by_role("button", name="中文").click()
        assert page.get_attribute("html", "lang") == "zh-Hans"
        until(page, DRAWN)
        # what the page shows, says of its elements, and draws
        html = page.evaluate("document.documentElement.outerHTML")
        assert english_left(shown(html), *NAMES) == []
        assert page.eval_on_selector_all(NAMED, SPOKEN) == []
        assert page.locator(".bar nav [aria-current]").inner_text() in ("运行", "账本", "调参")
        axes = page.eval_on_selector_all(".xtitle, .ytitle", "all => all.map(each => each.textContent)")
        assert [each for each in axes if re.search("[a-z]{3,}", each)] == []
        assert page.title() == before or re.search("[一-鿿]", page.title())
        page.set_viewport_size({"width": 390, "height": 800})
        page.wait_for_timeout(150)
        page.screenshot(path=tmp_path / "chinese.png", full_page=True)
        looks_right(page, 390, "light")
        page.reload()
        until(page, DRAWN)
        assert page.get_attribute("html", "lang") == "zh-Hans", "it is kept"
        page.get_by_role("button", name="English").click()
        until(page, DRAWN)
        assert page.get_attribute("html", "lang") == "en" and page.title() == before


# what people call things: runs and their settings, a study's, a device
NAMES = (HOSTILE, "digits", "killed", "now", "wider", "search", "key", "learning_rate", "schedule", "batch", "fixed",
         "<script>alert(1)</script>", "Intel Xeon Platinum")  # fmt: skip
# names of elements, in the language that is shown
NAMED = "[aria-label], [title], [placeholder]"
SPOKEN = """all => all.filter(each => !each.closest('.en, bdi')).flatMap(
    each => ['aria-label', 'title', 'placeholder'].filter(name => each.hasAttribute(`data-other-${name}`))
        .map(name => each.getAttribute(name)).filter(text => !/[一-鿿·]/.test(text))
)"""


def shown(html: str) -> str:
    """A page as it came: what plotly drew is asked for apart, and attributes stand in Chinese already."""
    html = re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)
    return re.sub(r' data-other-(?!text)[\w-]+="[^"]*"', "", re.sub(r' data-other-text="[^"]*"', "", html))


def test_a_browser_of_chinese_readers_begins_in_chinese(chromium: Any, full: Shown) -> None:
    with opened(chromium, full, "/runs/1", locale="zh-CN") as page:
        assert page.get_attribute("html", "lang") == "zh-Hans"
        assert page.get_attribute("iframe", "title") == "digits 的报告"
        page.frame_locator("iframe").get_by_text("of this run").wait_for()
        end = time.monotonic() + SOON_MS / 1000
        while not page.frames[1].url.endswith("/report#zh"):
            assert time.monotonic() < end, "its report is told by the end of its address"
            page.wait_for_timeout(20)
        page.goto(f"{full.url}/served")
        assert page.get_by_role("button", name="查看").is_enabled()
        page.get_by_role("button", name="English").click()
        page.goto(f"{full.url}/plan")
        assert page.get_by_role("button", name="Price it").is_visible()
        assert page.get_attribute("#on", "placeholder") == "this one"


def test_a_way_is_taken_as_a_job_to_copy(chromium: Any, full: Shown) -> None:
    job = {"name": "digits", "data": {"kind": "image", "path": "digits"}, "model": "mlp-small"}
    quick, small = offer("bf16 · 32 at once"), offer("bf16 · 16 at once", seconds=1.2, micro=16)
    peak = small.cost.peak_bytes.model_copy(update={"value": small.cost.peak_bytes.value / 2})
    small = small.model_copy(update={"cost": small.cost.model_copy(update={"peak_bytes": peak})})
    answer = told(proposal(plan=make_plan(), offers=(quick,), front=(quick, small)), job, "job.yaml")
    with opened(chromium, full, "/plan", permissions=["clipboard-read", "clipboard-write"]) as page:
        page.route("**/plan", lambda route: route.fulfill(json=answer))
        page.get_by_role("button", name="Price it").press("Enter")
        until(page, DRAWN)
        assert "micro_batch: 32" in page.inner_text("#text")
        assert page.inner_text("#command") == "thrifty run job-planned.yaml"
        page.get_by_role("button", name="Copy the command").click()
        page.get_by_text("Copied.", exact=True).wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == "thrifty run job-planned.yaml"
        page.get_by_role("radio", name="bf16 · 16 at once").check()
        assert "micro_batch: 16" in page.inner_text("#text")
        page.get_by_role("button", name="Copy the job").click()
        until(page, "document.querySelector('#copied').innerText === 'Copied.'")
        assert yaml.safe_load(page.evaluate("navigator.clipboard.readText()"))["plan"] == {"micro_batch": 16}
        page.get_by_role("slider", name="Time").press("Home")
        page.get_by_text("No way is within these limits").wait_for()
        assert page.locator("#take").is_hidden()
        page.get_by_role("button", name="中文").click()
        assert page.inner_text("#limits-name") == "可以花多少"
        slider = page.get_by_role("slider", name="时间")
        assert str(slider.get_attribute("aria-valuetext")).startswith("最多")
        until(page, "document.querySelector('#ways .xtitle')?.textContent === '每个设备的内存'")


def test_by_keyboard_alone(chromium: Any, full: Shown) -> None:
    with opened(chromium, full) as page:
        said = []
        for _ in range(9):
            page.keyboard.press("Tab")
            said.append(page.evaluate("document.activeElement.innerText.trim() || document.activeElement.id"))
        assert said == [
            "Skip to the page",
            "thrifty",
            "Runs",
            "Plan",
            "Ledger",
            "Studies",
            "Served",
            "中文",
            "now is under way",
        ]
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "q"
        page.keyboard.type("wider")
        page.keyboard.press("Enter")
        page.wait_for_url("**/?q=wider**")
        assert page.locator("tbody tr").count() == 1
        assert page.evaluate("getComputedStyle(document.querySelector('.skip')).left") == "-9999px"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, "the way past is seen"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_runs_are_sorted_and_compared_by_hand(chromium: Any, full: Shown) -> None:
    with opened(chromium, full) as page:
        button = page.get_by_role("button", name="Compare the chosen")
        assert button.is_disabled()
        page.get_by_role("link", name="time").click()
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        page.get_by_label("Compare digits", exact=True).check()
        assert button.is_disabled()
        page.get_by_label("Compare digits-wider").check()
        assert page.locator("#chosen").inner_text() == "2 chosen."
        button.click()
        until(page, DRAWN)
        page.get_by_text("What differed: train.batch").wait_for()
        assert page.eval_on_selector_all(".plot .trace path", "all => all.length") >= 4


def test_the_list_keeps_itself_fresh_while_nobody_uses_it(chromium: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    add_run(runs, "first", steps=1)
    add_run(runs, "second", steps=1)
    with showing(runs, tmp_path) as site, opened(chromium, site) as page:
        add_run(runs, "third", steps=1)
        page.get_by_role("link", name="third").wait_for()
        assert page.locator("#says").inner_text().startswith("3 runs")
        page.get_by_label("Compare third").check()
        page.get_by_label("Compare first").check()
        assert page.locator("#chosen").inner_text() == "2 chosen."
        add_run(runs, "fourth", steps=1)
        page.wait_for_timeout(5000)
        assert page.locator("#rows tr").count() == 3, "what is chosen stays"


def test_who_has_no_token_looks_and_does_not_act(chromium: Any, full: Shown) -> None:
    with opened(chromium, full, "/runs/9", token=False) as page:
        page.get_by_text("This browser may look and not act").wait_for()
        assert page.get_by_role("button", name="Pause").is_disabled()
        page.goto(f"{full.url}/plan")
        assert page.get_by_role("button", name="Price it").is_disabled()
        page.goto(f"{full.url}/#token={full.site.token}")
        assert full.site.token not in page.url and full.site.token not in page.content()
        page.goto(f"{full.url}/runs/9")
        assert page.get_by_role("button", name="Pause").is_enabled()


def test_a_slider_moves_and_the_front_follows_at_once(chromium: Any, full: Shown, tmp_path: Path) -> None:
    machines = tuple(
        Machine(
            name=f"chip-{number}:{2 ** (number % 8)}", device=f"chip {number}",
            devices=2 ** (number % 8), offer=scaled(number), speedup_of_doubling=1.5, pays=True, on_front=False,
        )
        for number in range(300)
    )  # fmt: skip
    answer = told(proposal(machines=machines, offers=(), front=()))
    with opened(chromium, full, "/plan") as page:
        page.route("**/plan", lambda route: route.fulfill(json=answer))
        page.get_by_role("button", name="Price it").press("Enter")
        until(page, DRAWN)
        best = page.locator("#best")
        assert "300 of 300 ways are left." in best.inner_text()
        took = []
        for name in ("Money", "Time", "Memory of a device"):
            slider = page.get_by_role("slider", name=name)
            slider.focus()
            for _ in range(4):
                page.keyboard.press("PageDown")
                page.wait_for_timeout(30)
                took.append(float(page.get_attribute("#ways", "data-redraw-ms") or "inf"))
            assert "at most" in str(slider.get_attribute("aria-valuetext"))
        assert "300 of 300" not in best.inner_text()
        took.sort()
        print(f"redrawn in {took[len(took) // 2]} ms in the median, {took[-1]} at worst")
        assert took[len(took) // 2] < REDRAW_MS
        page.screenshot(path=tmp_path / "front.png", full_page=True)
        front = page.locator("#rows tr").count()
        assert 0 < front < 300
        page.get_by_role("radio", name="memory").check()
        assert page.get_by_text("memory of a device", exact=True).count() == 1
        page.get_by_role("slider", name="Money").press("Home")
        page.get_by_role("slider", name="Time").press("Home")
        page.get_by_text("No way is within these limits").wait_for()


def scaled(number: int) -> Any:
    """A way of a machine: more of them are faster and dearer, some are beaten."""
    made = offer(
        f"data {2 ** (number % 8)}", seconds=1000.0 / 2 ** (number % 8) * (1 + (number * 7919 % 13) / 5), micro=number
    )
    cost, dear = made.cost, 1.0 + number % 17

    def times(interval: Any, factor: float) -> Any:
        return interval.model_copy(update={name: getattr(interval, name) * factor for name in ("low", "value", "high")})

    peak = times(cost.peak_bytes, 1.0 + number * 104_729 % 23)
    return made.model_copy(
        update={"cost": cost.model_copy(update={"usd": times(cost.usd, dear * 1e4), "peak_bytes": peak})}
    )


@pytest.fixture
def training(tmp_path: Path, digits: Path) -> Iterator[tuple[Path, Any]]:
    """A small real run that would train for long; its folder of runs, and its process."""
    job = {
        "name": "small",
        "data": {"kind": "image", "path": str(digits)},
        "model": "mlp-small",
        "train": {"steps": 500_000, "batch": 16, "evaluations": 400},
        "plan": {
            "precision": "fp32",
            "memory_format": "contiguous",
            "checkpointing": "none",
            "compile": "none",
            "threads": 1,
        },
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    with forked.start(["-m", "thrifty", "run", str(path), "--runs", str(tmp_path / "runs"), "--json"]) as process:
        yield tmp_path / "runs", process
        process.kill()


def test_a_real_run_is_watched_paused_lowered_and_stopped(
    chromium: Any, training: tuple[Path, Any], tmp_path: Path
) -> None:
    runs, process = training
    end = time.monotonic() + 200
    while not (runs / "small" / "events.jsonl").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    with showing(runs, tmp_path) as site, opened(chromium, site, expected="400") as page:
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("link", name="small is under way").click()
        figure = page.locator(".tile .measured").first

        def steps() -> int:
            return int(str(figure.text_content()).replace(",", ""))

        until(page, "document.querySelector('#loss .trace path')")
        before = steps()
        until(page, f"{STEPS} > {before}")
        page.get_by_role("button", name="Pause").click()
        page.locator("#status", has_text="paused").wait_for()
        page.wait_for_timeout(1500)
        waits = steps()
        page.screenshot(path=tmp_path / "paused.png", full_page=True)
        page.wait_for_timeout(2500)
        assert steps() == waits, "a run that waits takes no step"
        assert list((runs / "small" / "checkpoints").glob("step-*.sha256")), "what was learned is saved"
        page.get_by_role("button", name="Go on").click()
        until(page, f"{STEPS} > {waits}")
        lower = page.get_by_label("End once it has spent")
        lower.fill("9")
        lower.press("Enter")
        page.get_by_text("is no amount of time, energy or money").wait_for()
        lower.fill("3h")
        lower.press("Enter")
        page.get_by_text("It may spend 3h 00m in all.").wait_for()
        page.get_by_text("The budget is lower from step").wait_for()
        page.get_by_role("button", name="Stop, keep the best").click()
        page.locator("iframe").wait_for(timeout=90_000)
        page.frame_locator("iframe").get_by_text("Stopped as asked, at step").first.wait_for()
        page.frame_locator("iframe").locator("#loss .trace path").first.wait_for(state="attached")
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    result = json.loads(out)
    assert result["result"]["reason"].startswith("stopped as asked, at step ")
    assert result["bill"]["status"] == "done" and 0 < result["result"]["test"]["accuracy"] <= 1
    events = [json.loads(line) for line in (runs / "small" / "events.jsonl").read_text().splitlines()]
    kinds = [each["event"] for each in events if each["event"] in ("Paused", "WentOn", "Lowered", "Stopped")]
    assert kinds == ["Paused", "WentOn", "Lowered", "Stopped"]
    waited = next(each["seconds"] for each in events if each["event"] == "WentOn")
    trained = sum(stage["spent"]["wall_s"] for stage in result["bill"]["stages"] if stage["stage"] == "train")
    assert waited > 3.5
    stepped = sum(each["seconds"] for each in events if each["event"] in ("StepDone", "Evaluated"))
    assert trained < stepped + 0.8 * waited + 5, "what it waited is on no bill"
    assert not (runs / "small" / "control.json").exists()
    assert (runs / "small" / "bundle" / "model.safetensors").exists() or list((runs / "small" / "bundle").iterdir())
