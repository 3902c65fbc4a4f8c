"""What one text has read of a prompt another one does not read again: the same bits, whoever comes, leaves or fails."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bundles import write_language_bundle

from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.forms.prompts import Prompts
from thrifty.models.paged import PAGE_TOKENS, Part, kept_by
from thrifty.models.wishes import Wishes
from thrifty.serve.generation.engine import Engine
from thrifty.serve.generation.order import Order, Piece, Told
from thrifty.serve.generation.pool import Pool
from thrifty.serve.generation.prefix import names_of
from thrifty.serve.generation.writer import Writer
from thrifty.serve.generation.writing import READ_TOKENS
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics

SOON = 30.0
LENGTH = 224
PAGES = READ_TOKENS // PAGE_TOKENS
# begins that some have in common, and ends of their own
FIRST, SECOND = (
    [(7 * at + 3) % 40 + 2 for at in range(READ_TOKENS)],
    [(5 * at + 1) % 40 + 2 for at in range(READ_TOKENS)],
)
PROMPTS = (
    [*FIRST, *SECOND, 3, 4],
    [*FIRST, *SECOND, 5],
    [*FIRST, *FIRST, 5],
    [*FIRST, 9],
    [*SECOND, *FIRST, 5, 6, 7],
    [*FIRST[:-1], 2],
    FIRST,
    [4, 5],
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("shares") / "bundle"
    write_language_bundle(folder, scheme="xavier_normal", length=LENGTH)
    return load_bundle(folder)


def writer_of(bundle: Bundle, *, pages: int = 200) -> Writer:
    assert isinstance(bundle.form, Prompts)
    limits = Limits(cache_bytes=pages * kept_by(bundle.model).page_bytes)  # type: ignore[arg-type]
    engine = Engine(bundle.model, cache_bytes=limits.cache_bytes, texts=limits.texts)
    writer = Writer(bundle.form, engine, length=LENGTH, label="m:1", limits=limits, metrics=Metrics())
    writer.start()
    return writer


@pytest.fixture
def writer(bundle: Bundle) -> Iterator[Writer]:
    writer = writer_of(bundle)
    yield writer
    writer.close(SOON)


@dataclass
class Heard:
    """What was told of a text."""

    pieces: list[Piece] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, piece: Piece | Exception) -> None:
        if isinstance(piece, Piece):
            self.pieces.append(piece)
        else:
            self.error = piece

    @property
    def over(self) -> bool:
        return self.error is not None or any(piece.end for piece in self.pieces)

    @property
    def told(self) -> list[Told]:
        """Each token with its probabilities, to the bit."""
        await_that(lambda: self.over)
        assert self.error is None, self.error
        return [each for piece in self.pieces for each in piece.told]

    @property
    def shared(self) -> int:
        await_that(lambda: self.over)
        return self.pieces[-1].shared


def await_that(holds: Any) -> None:
    until = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.002)


def write(writer: Writer, *prompts: Sequence[int], count: int = 4, **order: Any) -> list[Heard]:
    return [heard for heard, _ in begin(writer, *prompts, count=count, **order)]


def begin(writer: Writer, *prompts: Sequence[int], count: int = 4, **order: Any) -> list[tuple[Heard, Any]]:
    heard = [Heard() for _ in prompts]
    asked = {"max_tokens": count, "likeliest": 3, "wishes": Wishes(temperature=1.0), **order}
    orders = [(Order(prompt=prompt, **asked), each) for prompt, each in zip(prompts, heard, strict=True)]
    return list(zip(heard, writer.write(orders, deadline=time.monotonic() + SOON), strict=True))


def read_by(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The tokens of every part that is read from now on."""
    parts: list[list[int]] = []
    step = writer.engine.step  # type: ignore[attr-defined]

    def counted(given: Sequence[Part]) -> torch.Tensor:
        parts.extend(list(part.tokens) for part in given if len(part.tokens) > 1)
        logits_BV: torch.Tensor = step(given)
        return logits_BV

    monkeypatch.setattr(writer.engine, "step", counted)
    return parts


def test_a_text_that_shares_is_to_the_bit_what_it_is_alone(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = read_by(writer, monkeypatch)
    prompt = PROMPTS[0]
    (alone,) = write(writer, prompt, salt="alone")
    assert alone.told and alone.shared == 0
    (first,) = write(writer, prompt)
    assert first.told == alone.told and first.shared == 0
    assert list(map(len, parts)) == [READ_TOKENS, READ_TOKENS, 2] * 2
    parts.clear()
    (again,) = write(writer, prompt)
    assert again.told == alone.told and again.shared == 2 * READ_TOKENS
    assert parts == [prompt[2 * READ_TOKENS :]]
    (longer,) = write(writer, [*prompt, *FIRST])
    assert longer.shared == 2 * READ_TOKENS


def test_equal_prompts_that_come_at_once_are_read_once(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone,) = write(writer, PROMPTS[0], salt="alone")
    assert alone.told
    parts = read_by(writer, monkeypatch)
    heard = write(writer, *[PROMPTS[0]] * 5, PROMPTS[1])
    assert all(each.told == alone.told for each in heard[:5])
    assert sorted(each.shared for each in heard) == [0, *[2 * READ_TOKENS] * 5]
    assert sorted(map(len, parts)) == [2] * 5 + [READ_TOKENS] * 2
    counted = writer._metrics.registry.get_sample_value
    assert counted("thrifty_prefix_tokens_total", {"model": "m:1"}) == 5 * 2 * READ_TOKENS
    assert counted("thrifty_cache_pages", {"model": "m:1", "state": "kept"}) == writer.pool.kept >= 2 * PAGES


def test_what_was_left_longest_ago_makes_room_and_memory_stays_what_it_is(bundle: Bundle) -> None:
    writer = writer_of(bundle, pages=8)
    prompts = [[one, *FIRST, *SECOND] for one in (2, 3, 4)]
    alone = [write(writer, prompt, salt="alone")[0].told for prompt in prompts]
    for prompt, expected in zip(prompts, alone, strict=True):
        (heard,) = write(writer, prompt)
        assert (heard.told, heard.shared) == (expected, 0)
        assert writer.pool.used + writer.pool.kept + writer.pool.free == writer.pool.pages == 8
    (last,) = write(writer, prompts[2])
    assert (last.told, last.shared) == (alone[2], 2 * READ_TOKENS)
    (first,) = write(writer, prompts[0])
    assert (first.told, first.shared) == (alone[0], 0), "its pages went to those that came after it"
    writer.close(SOON)


def test_more_texts_fit_where_they_share(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(bundle, pages=10)
    (alone,) = write(writer, PROMPTS[0], count=20)
    assert alone.told
    rows: list[int] = []
    step = writer.engine.step  # type: ignore[attr-defined]

    def counted(parts: Sequence[Part]) -> torch.Tensor:
        rows.append(len(parts))
        logits_BV: torch.Tensor = step(parts)
        return logits_BV

    monkeypatch.setattr(writer.engine, "step", counted)
    heard = write(writer, *[PROMPTS[0]] * 5, count=20)
    assert all(each.told == alone.told for each in heard)
    assert max(rows) == 5, "a page of its own each, and four for all"
    writer.close(SOON)


def test_a_part_that_failed_is_read_by_nobody_else(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    step = writer.engine.step  # type: ignore[attr-defined]
    poison = [*FIRST, 44, *SECOND[1:], 8]

    def poisoned(parts: Sequence[Part]) -> torch.Tensor:
        logits_BV: torch.Tensor = step(parts)
        for row, part in enumerate(parts):
            if 44 in part.tokens:
                logits_BV[row, 3] = float("nan")
        return logits_BV

    monkeypatch.setattr(writer.engine, "step", poisoned)
    heard = write(writer, poison, poison)
    await_that(lambda: all(each.over for each in heard))
    assert all(each.error is not None and "NaN" in str(each.error) for each in heard)
    await_that(lambda: writer.pool.used == 0)
    assert writer.pool.kept == PAGES, "the part before it is sound"
    assert write(writer, [*FIRST, 9])[0].shared == READ_TOKENS


def test_a_client_that_leaves_lets_the_others_keep_what_it_read(writer: Writer) -> None:
    (alone,) = write(writer, PROMPTS[0], count=60, salt="alone")
    assert alone.told
    texts = begin(writer, *[PROMPTS[0]] * 3, count=60, growing=True)
    await_that(lambda: all(heard.pieces for heard, _ in texts))
    writer.drop([texts[0][1]])
    assert texts[1][0].told == texts[2][0].told == alone.told
    await_that(lambda: writer.pool.used == 0)
    assert not texts[0][0].over and writer.pool.kept >= 2 * PAGES


def test_a_text_that_will_outgrow_its_context_keeps_to_itself(writer: Writer) -> None:
    prompt = [*FIRST, *SECOND, *FIRST, 3]
    count = LENGTH - len(prompt) + 3
    beyond = [write(writer, prompt, count=count)[0] for _ in range(2)]
    assert beyond[0].told == beyond[1].told and beyond[1].shared == 0
    assert writer.pool.kept == 0
    within = [write(writer, prompt, count=count - 3)[0] for _ in range(2)]
    assert within[1].shared == 3 * READ_TOKENS
    assert within[1].told == within[0].told == beyond[0].told[: count - 3]


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from(range(len(PROMPTS))), st.integers(1, 20), st.integers(0, 3), st.booleans()),
        min_size=1,
        max_size=14,
    )
)
def test_texts_are_what_they_are_alone_whoever_comes_and_leaves(
    bundle: Bundle, arrivals: list[tuple[int, int, int, bool]]
) -> None:
    writer = writer_of(bundle, pages=15)
    expected = {at: write(writer, PROMPTS[at], count=20, salt="alone")[0].told for at in {each[0] for each in arrivals}}
    texts = []
    for at, count, pause, leaves in arrivals:
        (text,) = begin(writer, PROMPTS[at], count=count, growing=True)
        texts.append((at, count, *text))
        time.sleep(0.002 * pause)
        if leaves:
            writer.drop([texts.pop(len(texts) // 2)[3]])
    for at, count, heard, _ in texts:
        assert heard.told == expected[at][:count]
        assert heard.shared % READ_TOKENS == 0
    await_that(lambda: writer.pool.used == 0)
    assert writer.pool.kept + writer.pool.free == writer.pool.pages == 15
    assert writer.healthy
    writer.close(SOON)


@dataclass
class Text:
    """A text of the model test: the names of its parts, its pages, and how many it may yet take."""

    names: list[bytes]
    pages: list[int]
    promised: int
    parts: int


@settings(deadline=None)
@given(
    size=st.integers(4, 24),
    moves=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(0, 9)), max_size=80),
)
def test_a_shared_page_holds_what_its_name_says_and_no_other_has_two_owners(
    size: int, moves: list[tuple[int, int, int]]
) -> None:
    pool, texts = Pool(size), list[Text]()
    holds: dict[int, tuple[bytes, int]] = {}
    for move, which, number in moves:
        if move <= 1:
            names = names_of(PROMPTS[which], READ_TOKENS)
            pages = PAGES * len(names) + 1 + number % 2
            shared = pool.promise(pages, names) if pages <= size else None
            if shared is not None:
                texts.append(Text(names, shared, pages - len(shared), len(shared) // PAGES))
        elif texts and move == 2:
            text = texts.pop(number % len(texts))
            pool.give_back(text.pages, text.promised)
        elif texts:
            grow(pool, texts[number % len(texts)], holds)
        where = pool.closer()
        holds = {where.get(page, page): what for page, what in holds.items()}
        for text in texts:
            text.pages = [where.get(page, page) for page in text.pages]
            for at, name in enumerate(text.names[: text.parts]):
                assert [holds[page] for page in text.pages[PAGES * at : PAGES * (at + 1)]] == [(name, 0), (name, 1)]
        held = {page for text in texts for page in text.pages}
        assert len(held) == pool.used and pool.used + sum(text.promised for text in texts) <= size
        assert pool.used + pool.kept + pool.free == size
        assert not held or max(held) < 2 * len(held)


def grow(pool: Pool, text: Text, holds: dict[int, tuple[bytes, int]]) -> None:
    """Take over a part or read it, as the writer does; or take a page."""
    if text.parts == len(text.names):
        if text.promised:
            page = pool.take()
            holds[page] = b"its own", len(text.pages)
            text.pages.append(page)
            text.promised -= 1
        return
    name = text.names[text.parts]
    pages = pool.share(name)
    if not pages:
        pages = [pool.take() for _ in range(PAGES)]
        holds.update((page, (name, at)) for at, page in enumerate(pages))
        pool.name(name, pages)
    text.pages += pages
    text.promised -= PAGES
    text.parts += 1
