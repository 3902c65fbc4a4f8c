"""The page in a real browser: each kind of form asked by hand, keys, widths, themes, the keyboard, and no complaint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from made_bundles import pixels, png, sound, write_sound_bundle, write_table_bundle, write_text_bundle
from real_server import serving

from thrifty.export.bundle import Bundle, load_bundle
from thrifty.serve.asgi import App
from thrifty.serve.gate import Gate
from thrifty.serve.keys import Keys
from thrifty.serve.limits import Limits

pytestmark = [pytest.mark.browser, pytest.mark.slow]

KEY = "0123456789abcdef"
HOSTILE = "<img src=x onerror=alert(1)>\u202e&amp;"
SOON_MS = 20_000


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """A table of labels, one of numbers, pairs of texts, hidden words, recordings, and a name that means harm."""
    folder = tmp_path_factory.mktemp("others")
    write_table_bundle(folder / "rich", labels=("poor", "rich"), name="rich")
    write_table_bundle(folder / "pay", labels=(), name="pay")
    write_text_bundle(folder / "pairs", name="pairs", family="bert_original", pairs=True)
    write_text_bundle(folder / "filler", name="filler", task="mask")
    write_sound_bundle(folder / "ear", name="ear")
    found = [load_bundle(folder / name) for name in ("rich", "pay", "pairs", "filler", "ear")]
    found[0].info = found[0].info.model_copy(update={"name": HOSTILE})
    return found


@pytest.fixture(scope="module")
def url(pets: Bundle, pets2: Bundle, poet: Bundle, others: list[Bundle]) -> Iterator[str]:
    with serving(App([pets, pets2, poet, *others], Limits())) as url:
        yield url


@contextmanager
def opened(chromium: Any, url: str, *, expected: tuple[str, ...] = (), **context: Any) -> Iterator[Any]:
    """Open a page whose console must stay empty but for what is expected."""
    with ExitStack() as stack:
        place = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        stack.callback(place.close)
        page = place.new_page()
        page.set_default_timeout(SOON_MS)
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((url, "blob:", "data:")) else complaints.append(asked.url),
        )
        page.goto(url)
        yield page
        assert [each for each in complaints if not any(part in each for part in expected)] == []


def card(page: Any, name: str) -> Any:
    found = page.get_by_role("region", name=name, exact=True)
    found.wait_for()
    return found


def test_an_image_is_told_and_its_bill_grows(chromium: Any, url: str, pets2: Bundle, tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(png(pixels(3, side=40)))
    with opened(chromium, url, expected=("400",)) as page:
        pets = card(page, "pets")
        pets.get_by_label("An image").set_input_files(file)
        pets.get_by_alt_text("The chosen image, cat.png").wait_for()
        pets.get_by_role("button", name="Ask").press("Enter")
        said = pets.locator(".said-first")
        said.wait_for()
        mine = pets2.predict(file.read_bytes())
        assert said.text_content() == mine["label"]
        rows = pets.locator(".answer tbody tr").all_text_contents()
        best = max(mine["probabilities"].values())
        assert rows[0] == f"{mine['label']}{100 * best:.1f} %"
        assert len(rows) == 3
        pets.locator(".tile", has_text="1 answered").wait_for()
        assert pets.locator(".status").text_content() == "version 2: ready"
        dropped = page.evaluate_handle(
            """bytes => {
                const held = new DataTransfer();
                held.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
                return held;
            }""",
            list(png(pixels(4, side=40))),
        )
        pets.locator(".drop").dispatch_event("drop", {"dataTransfer": dropped})
        pets.get_by_alt_text("The chosen image, dropped.png").wait_for()
        pets.get_by_label("Version").select_option("1")
        pets.locator(".status", has_text="version 1: ready").wait_for()
        assert pets.locator(".answer").text_content() == ""
        file.write_bytes(b"no image")
        pets.get_by_label("An image").set_input_files(file)
        pets.get_by_role("button", name="Ask").click()
        trouble = pets.get_by_role("alert")
        trouble.wait_for()
        assert "image" in str(trouble.text_content())


def test_a_row_of_a_table_is_told_by_label_and_by_number(chromium: Any, url: str, others: list[Bundle]) -> None:
    cells = {"age": 39, "job": "cook", "member": "true", "since": "2009-04-02"}
    with opened(chromium, url) as page:
        for name, bundle in ((HOSTILE, others[0]), ("pay", others[1])):
            table = card(page, name)
            table.get_by_label("age").fill("39")
            table.get_by_label("job").fill("cook")
            table.get_by_label("member").select_option("true")
            table.get_by_label("since").fill("2009-04-02")
            table.get_by_label("since").press("Enter")
            table.locator(".said-first").wait_for()
            said, mine = table.locator(".said-first").text_content(), bundle.predict(cells)
            assert said == mine["label"] if "label" in mine else said.startswith("pay: ")
            if "value" in mine:
                assert float(said.removeprefix("pay: ").replace(",", "")) == pytest.approx(mine["value"], rel=1e-5)


def test_a_text_is_streamed_as_it_is_written(chromium: Any, url: str, poet: Bundle) -> None:
    with opened(chromium, url) as page:
        writer = card(page, "poet")
        writer.get_by_label("Prompt").fill("the cat")
        writer.get_by_label("Tokens at most").fill("12")
        writer.get_by_label("Temperature").fill("0")
        with page.expect_request("**/v1/completions") as asked:
            writer.get_by_role("button", name="Write").click()
        assert asked.value.post_data_json["stream"] is True
        writer.locator(".took").wait_for()
        mine = poet.predict("the cat", max_tokens=12, temperature=0)["completion"]
        assert writer.locator("blockquote").text_content() == "the cat" + mine
        writer.locator(".tile", has_text="Tokens written").wait_for()


def test_what_takes_too_long_is_stopped_and_what_is_gone_is_asked_again(chromium: Any, url: str) -> None:
    with opened(chromium, url, expected=("ERR_FAILED",)) as page:
        writer = card(page, "poet")
        page.route("**/v1/completions", lambda route: None)
        writer.get_by_role("button", name="Write").click()
        writer.get_by_role("button", name="Stop").click()
        writer.get_by_text("Stopped.").wait_for()
        assert writer.get_by_role("button", name="Write").is_enabled()
        page.unroute("**/v1/completions")
        writer.get_by_label("Prompt").fill("half a")
        page.route("**/page/bill", lambda route: route.abort())
        page.get_by_text("The server does not answer; it is asked again.").wait_for()
        page.unroute("**/page/bill")
        page.get_by_text("The server does not answer").wait_for(state="detached")
        assert writer.get_by_label("Prompt").input_value() == "half a", "what was written stays"


def test_other_kinds_have_forms_of_their_own(chromium: Any, url: str, others: list[Bundle], tmp_path: Path) -> None:
    file = tmp_path / "tone.wav"
    file.write_bytes(sound())
    with opened(chromium, url) as page:
        pairs = card(page, "pairs")
        pairs.get_by_label("First text").fill("the cat")
        pairs.get_by_label("Second text").fill("the dog")
        pairs.get_by_role("button", name="Ask").click()
        pairs.locator(".said-first").wait_for()
        assert pairs.locator(".said-first").text_content() == others[2].predict("the cat\tthe dog")["label"]
        filler = card(page, "filler")
        filler.get_by_label("A text with [MASK]").fill("the [MASK] sat")
        filler.get_by_role("button", name="Ask").click()
        filler.locator("blockquote").wait_for()
        assert filler.locator("blockquote").text_content() == others[3].predict("the [MASK] sat")["filled"]
        ear = card(page, "ear")
        ear.get_by_label("A recording").set_input_files(file)
        ear.get_by_role("button", name="Ask").click()
        ear.locator(".said-first").wait_for()
        assert ear.locator(".said-first").text_content() == others[4].predict(file.read_bytes())["label"]


def test_a_key_is_asked_for_and_kept_nowhere(chromium: Any, pets: Bundle) -> None:
    with (
        serving(App([pets], Limits(), gate=Gate(Keys([KEY])))) as url,
        opened(chromium, url, expected=("401",)) as page,
    ):
        field = page.get_by_label("API key", exact=True)
        field.wait_for()
        assert "pets" not in page.content()
        field.fill("a key that is wrong")
        field.press("Enter")
        page.get_by_text("The server does not know this key.").wait_for()
        field.fill(KEY)
        field.press("Enter")
        pets_card = card(page, "pets")
        pets_card.locator(".tile").first.wait_for()
        assert KEY not in page.content()
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        page.reload()
        field.wait_for()
        assert "pets" not in page.content()


def test_it_fits_wide_and_narrow_light_and_dark(chromium: Any, url: str, tmp_path: Path) -> None:
    with opened(chromium, url) as page:
        for width, scheme in ((1280, "light"), (390, "light"), (390, "dark")):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 900})
            card(page, "pets").locator(".tile").first.wait_for()
            page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 28)")
        unnamed = "all => all.filter(each => !each.labels?.length).map(each => each.outerHTML)"
        assert page.eval_on_selector_all("main input, main select, main textarea", unnamed) == []
        identifiers = page.eval_on_selector_all("[id]", "all => all.map(each => each.id)")
        assert len(identifiers) == len(set(identifiers))
