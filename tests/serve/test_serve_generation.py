"""Many texts written at once: each as it would be alone, whatever else is asked, cancelled, late or broken."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bundles import write_language_bundle

from thrifty.errors import JobError, RequestError
from thrifty.export.bundle import Bundle, load_bundle
from thrifty.export.check import INFO, sha256
from thrifty.export.forms.prompts import Prompts
from thrifty.models.paged import PAGE_TOKENS, Part
from thrifty.models.wishes import Wishes
from thrifty.serve.batcher import FULL
from thrifty.serve.generation.engine import Engine
from thrifty.serve.generation.order import Order, Piece
from thrifty.serve.generation.pool import Pool
from thrifty.serve.generation.turn import NO_MOVES, Outcome, Room, Steps, Turn
from thrifty.serve.generation.writer import Writer
from thrifty.serve.limits import Limits
from thrifty.serve.lost import WorkerLostError
from thrifty.serve.metrics import Metrics
from thrifty.serve.workers.nursery import Nursery
from thrifty.serve.workers.process import Process
from thrifty.serve.workers.remote import Remote

SOON = 30.0
LENGTH = 160
PROMPTS = ("the cat sat", "", "the dog", "the cat sat on the mat and the dog sat on the cat " * 4, "mat", "x")


@pytest.fixture(scope="module", params=["gpt", pytest.param("llama", marks=pytest.mark.slow)])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("writes") / "bundle"
    write_language_bundle(folder, family=request.param, scheme="xavier_normal", length=LENGTH)
    return load_bundle(folder)


def writer_of(bundle: Bundle, **limits: Any) -> Writer:
    bounds = Limits(**limits)
    engine = Engine(bundle.model, cache_bytes=bounds.cache_bytes, texts=bounds.texts)
    return started(bundle, engine, bounds)


def started(bundle: Bundle, engine: Steps, limits: Limits) -> Writer:
    assert isinstance(bundle.form, Prompts)
    writer = Writer(bundle.form, engine, length=LENGTH, label="m:1", limits=limits, metrics=Metrics())
    writer.start()
    return writer


@pytest.fixture(scope="module")
def writer(bundle: Bundle) -> Iterator[Writer]:
    writer = writer_of(bundle)
    yield writer
    writer.close(SOON)


class Heard:
    """What was told of a text."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.error: RequestError | None = None
        self.ended = threading.Event()
        self.begun = threading.Event()

    def __call__(self, piece: Piece | RequestError) -> None:
        self.begun.set()
        if isinstance(piece, RequestError):
            self.error = piece
            self.ended.set()
            return
        self.pieces.append(piece)
        if piece.end:
            self.ended.set()

    @property
    def text(self) -> str:
        assert self.ended.wait(SOON)
        assert self.error is None, self.error
        return "".join(piece.text for piece in self.pieces)


def write(writer: Writer, prompt: Sequence[int], *, deadline: float | None = None, **order: Any) -> tuple[Heard, Any]:
    heard = Heard()
    until = time.monotonic() + SOON if deadline is None else deadline
    (writing,) = writer.write([(Order(prompt=prompt, **{"max_tokens": 8, **order}), heard)], deadline=until)
    return heard, writing


def await_free(writer: Writer) -> None:
    until = time.monotonic() + SOON
    while writer.pool.used and time.monotonic() < until:
        time.sleep(0.005)
    assert writer.pool.used == 0


@settings(max_examples=6, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(PROMPTS),
            st.fixed_dictionaries(
                {
                    "max_tokens": st.integers(1, 12),
                    "temperature": st.sampled_from([0.0, 0.8]),
                    "seed": st.integers(0, 3),
                }
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_texts_are_the_forms_own(writer: Writer, bundle: Bundle, rows: list[tuple[str, dict[str, Any]]]) -> None:
    answers = writer.submit(rows, deadline=time.monotonic() + SOON).result(SOON)
    assert answers == bundle.form.answers(rows)


def test_a_text_beyond_the_context_is_the_forms_own(writer: Writer, bundle: Bundle) -> None:
    row = ("the cat sat on the mat " * 40, {"max_tokens": 4, "temperature": 0.0})
    assert writer.submit([row], deadline=time.monotonic() + SOON).result(SOON) == bundle.form.answers([row])


def test_texts_join_while_another_is_written(writer: Writer) -> None:
    long, _ = write(writer, [5], max_tokens=120, growing=True)
    assert long.begun.wait(SOON)
    short, _ = write(writer, [6], max_tokens=2)
    assert short.ended.wait(SOON)
    assert not long.ended.is_set()
    assert long.text
    alone, _ = write(writer, [5], max_tokens=120)
    assert alone.text == long.text


def test_pieces_put_together_are_the_whole(writer: Writer) -> None:
    wishes = Wishes(temperature=1.0)
    growing, _ = write(writer, [7, 8], max_tokens=40, wishes=wishes, seed=4, growing=True)
    whole, _ = write(writer, [7, 8], max_tokens=40, wishes=wishes, seed=4)
    assert growing.text == whole.text
    assert len(growing.pieces) > 3 and len(whole.pieces) == 1


@pytest.mark.parametrize("growing", [False, True])
def test_a_stop_ends_a_text_and_is_not_part_of_it(writer: Writer, growing: bool) -> None:
    wishes = Wishes(temperature=1.0)
    whole, _ = write(writer, [9], max_tokens=40, wishes=wishes)
    stop = whole.text[10:13]
    stopped, _ = write(writer, [9], max_tokens=40, wishes=wishes, stop=("never there", stop), growing=growing)
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.pieces[-1].end == "stop" and whole.pieces[-1].end in {"length", "stop"}


def test_the_end_token_ends_a_text(writer: Writer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = bundle.form.answers([("the cat", {"max_tokens": 1, "temperature": 0.0})])
    step = writer.engine.step

    def ends(parts: Sequence[Part]) -> torch.Tensor:
        logits_BV = step(parts)
        logits_BV[:, bundle.info.data.end] += 1e4
        return logits_BV

    monkeypatch.setattr(writer.engine, "step", ends)
    ended, _ = write(writer, [5], max_tokens=9)
    assert (ended.text, ended.pieces[-1].end, ended.pieces[-1].tokens) == ("", "stop", 0)
    assert first


def test_probabilities_are_told_of_each_token(writer: Writer) -> None:
    told, _ = write(writer, [5, 6], wishes=Wishes(temperature=0.0), likeliest=3)
    assert told.text
    tokens = [each for piece in told.pieces for each in piece.told]
    assert len(tokens) == told.pieces[-1].tokens
    for each in tokens:
        assert each.likeliest[0] == (each.token, each.log_probability)
        assert len(each.likeliest) == 3 and 0 > each.log_probability >= each.likeliest[1][1] >= each.likeliest[2][1]


def test_a_client_that_leaves_frees_its_pages(writer: Writer) -> None:
    gone, writing = write(writer, [5], max_tokens=150, growing=True)
    kept, _ = write(writer, [5], max_tokens=20)
    assert gone.begun.wait(SOON)
    writer.drop([writing])
    assert kept.text
    await_free(writer)
    assert not gone.ended.is_set()


def test_a_cancelled_request_frees_its_pages(writer: Writer) -> None:
    future = writer.submit([("the", {"max_tokens": 150})] * 3, deadline=time.monotonic() + SOON)
    assert future.cancel()
    await_free(writer)


def test_a_poisoned_text_fails_alone(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    fine, _ = write(writer, [5, 6], max_tokens=10)
    expected = fine.text
    step = writer.engine.step

    def poisoned(parts: Sequence[Part]) -> torch.Tensor:
        if any(13 in part.tokens for part in parts):
            raise ValueError("thirteen")
        logits_BV = step(parts)
        for row, part in enumerate(parts):
            if 14 in part.tokens:
                logits_BV[row, 3] = float("nan")
        return logits_BV

    monkeypatch.setattr(writer.engine, "step", poisoned)
    found = [write(writer, prompt, max_tokens=10)[0] for prompt in ([5, 6], [13, 1], [14, 2, 2], [5, 6], [13])]
    assert found[0].text == found[3].text == expected
    for at, says in ((1, "ValueError"), (2, "NaN"), (4, "ValueError")):
        assert found[at].ended.wait(SOON)
        error = found[at].error
        assert error is not None and error.status == 500 and says in error.what
    await_free(writer)


def test_a_text_that_comes_too_late_is_told_so(writer: Writer) -> None:
    late, _ = write(writer, [5], deadline=time.monotonic() - 1)
    assert late.ended.wait(SOON)
    assert late.error is not None and late.error.status == 504
    await_free(writer)


@pytest.mark.parametrize("bundle", ["gpt"], indirect=True)
def test_a_full_queue_refuses_and_a_closed_writer_too(bundle: Bundle) -> None:
    writer = writer_of(bundle, queue_rows=2, request_rows=2, texts=1)
    first, _ = write(writer, [5], max_tokens=100, growing=True)
    assert first.begun.wait(SOON)
    waiting = [write(writer, [5])[0] for _ in range(2)]
    assert writer.waiting_rows == 2
    with pytest.raises(RequestError, match=FULL) as refused:
        write(writer, [5])
    assert refused.value.status == 503
    closing = threading.Thread(target=writer.close, args=(SOON,))
    closing.start()
    assert all(each.text for each in (first, *waiting)), "what was asked for is still written"
    closing.join(SOON)
    assert not writer.healthy
    with pytest.raises(RequestError, match="shutting down"):
        write(writer, [5])


@pytest.mark.parametrize("bundle", ["gpt"], indirect=True)
def test_texts_wait_for_room_and_never_lose_it(bundle: Bundle) -> None:
    whole = -(-LENGTH // PAGE_TOKENS)
    page_bytes = 2 * 32 * PAGE_TOKENS * 4
    writer = writer_of(bundle, cache_bytes=whole * page_bytes)
    found = [write(writer, [5 + each], max_tokens=90)[0] for each in range(4)]
    alone = [write(writer, [5 + each], max_tokens=90)[0] for each in range(4)]
    assert [each.text for each in found] == [each.text for each in alone]
    assert writer.pool.pages == whole
    writer.close(SOON)


@pytest.mark.parametrize("bundle", ["gpt"], indirect=True)
def test_a_cache_smaller_than_a_text_shortens_it_and_says_so(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    page_bytes = 2 * 32 * PAGE_TOKENS * 4
    writer = writer_of(bundle, cache_bytes=2 * page_bytes)
    assert "read no further back" in caplog.text
    assert write(writer, [5], max_tokens=3 * PAGE_TOKENS)[0].text
    assert writer.length == 2 * PAGE_TOKENS
    writer.close(SOON)
    with pytest.raises(JobError, match="cache_bytes"):
        writer_of(bundle, cache_bytes=page_bytes - 1)


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 12))
def test_no_page_has_two_owners_and_promises_hold(moves: list[int], pages: int) -> None:
    pool = Pool(pages)
    texts: list[tuple[list[int], int]] = []
    for move in moves:
        if move < 5 and pool.promise(move) is not None:
            taken = move - move // 2
            texts.append(([pool.take() for _ in range(taken)], move - taken))
        elif move >= 5 and texts:
            pool.give_back(*texts.pop(move % len(texts)))
        held = [page for each, _ in texts for page in each]
        assert len(set(held)) == len(held) == pool.used
        where = pool.closer()
        assert len(set(where.values())) == len(where) and set(where.values()).isdisjoint(held)
        texts = [([where.get(page, page) for page in each], promised) for each, promised in texts]
        assert pool.free == pages - len(held)


class Fragile:
    """An engine whose worker is lost over token 13, and whenever it is told so; a new one holds nothing."""

    cpu_seconds = 0.0

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.engine, self.lost, self.cannot_start = bundle, None, 0, False
        self.dies = False

    def begin(self) -> Room:
        if self.cannot_start:
            raise WorkerLostError("is being started again", by_rows=False)
        if self.engine is None:
            self.engine = Engine(self.bundle.model, cache_bytes=2**24, texts=8)
        return self.engine.room

    def take(
        self, turns: Sequence[Turn], *, fresh: Sequence[int] = (), moves: Mapping[int, int] = NO_MOVES
    ) -> list[Outcome]:
        self.begin()
        if self.dies or any(13 in turn.part.tokens for turn in turns):
            self.engine, self.dies = None, False
            self.lost += 1
            raise WorkerLostError("died", by_rows=True)
        assert self.engine is not None
        return self.engine.take(turns, fresh=fresh, moves=moves)


@pytest.mark.parametrize("bundle", ["gpt"], indirect=True)
def test_a_text_over_which_workers_die_fails_and_its_neighbours_go_on(bundle: Bundle) -> None:
    fragile = Fragile(bundle)
    writer = started(bundle, fragile, Limits())
    drawn = {"max_tokens": 40, "wishes": Wishes(temperature=1.0), "growing": True}
    alone = [write(writer, [5 + each] * 70, seed=each, **drawn)[0].text for each in range(3)]
    others = [write(writer, [5 + each] * 70, seed=each, **drawn)[0] for each in range(3)]
    assert others[0].begun.wait(SOON)
    poison, _ = write(writer, [13], max_tokens=4)
    assert poison.ended.wait(SOON)
    assert poison.error is not None and (poison.error.status, fragile.lost) == (500, 2)
    assert "lost over this text, twice" in poison.error.what
    assert [each.text for each in others] == alone, "texts go on, no character twice"
    await_free(writer)
    assert writer.healthy
    writer.close(SOON)


@pytest.mark.parametrize("bundle", ["gpt"], indirect=True)
def test_a_worker_that_dies_when_idle_is_noticed_and_started_again(bundle: Bundle) -> None:
    fragile = Fragile(bundle)
    writer = started(bundle, fragile, Limits(probe_seconds=0.02))
    assert write(writer, [5])[0].text
    fragile.cannot_start = True
    assert until(lambda: not writer.healthy)
    refused, _ = write(writer, [5])
    assert refused.ended.wait(SOON)
    assert refused.error is not None and refused.error.status == 503 and "started again" in refused.error.what
    fragile.cannot_start = False
    assert until(lambda: writer.healthy)
    assert write(writer, [5])[0].text
    writer.close(SOON)


def until(holds: Any) -> bool:
    latest = time.monotonic() + SOON
    while not holds() and time.monotonic() < latest:
        time.sleep(0.005)
    return bool(holds())


@pytest.mark.slow
@pytest.mark.parametrize("bundle", ["gpt"], indirect=True)
def test_a_process_that_is_killed_midway_is_another_one_in_the_same_text(bundle: Bundle) -> None:
    deaths: list[str] = []
    with Nursery("torch language") as nursery:
        process = Process(
            nursery, bundle.folder, sha256=sha256(bundle.folder / INFO), needs="torch language", name="m:1", cores=[0],
            patience=lambda rows: SOON, lost=deaths.append, writes={"cache_bytes": 2**24, "texts": 8},
        )  # fmt: skip
        writer = started(bundle, Remote(process, SOON), Limits())
        whole, _ = write(writer, [5, 6], max_tokens=120, likeliest=2)
        assert whole.text
        again, _ = write(writer, [5, 6], max_tokens=120, likeliest=2, growing=True)
        assert again.begun.wait(SOON)
        signal.pidfd_send_signal(process._process, signal.SIGKILL)
        assert again.text == whole.text
        assert deaths == ["died"]
        assert [each.token for piece in again.pieces for each in piece.told] == [
            each.token for each in whole.pieces[0].told
        ]
        assert process.cpu_seconds > 0
        writer.close(SOON)
        process.stop()


@pytest.mark.parametrize("bundle", ["gpt"], indirect=True)
def test_a_gpu_that_computes_no_more_is_no_fault_of_a_text(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(bundle.model, cache_bytes=2**24, texts=4)
    turns = [Turn(Part([0], 0, [0])), Turn(Part([1], 0, [1]))]

    def fails(parts: Sequence[Part]) -> torch.Tensor:
        raise torch.AcceleratorError("an illegal memory access was encountered")

    monkeypatch.setattr(engine, "step", fails)
    with pytest.raises(torch.AcceleratorError):
        engine.take(turns, fresh=[0, 1])
