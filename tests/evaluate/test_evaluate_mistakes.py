"""Answers one by one: their losses add up to the whole, and the worst of them are shown with their samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thrifty.data import Store, prepare, sweep, sweep_order
from thrifty.evaluate import evaluate
from thrifty.evaluate.mistakes import mistakes_of
from thrifty.spec import ImageData, TableData, TextData


class Echo(nn.Module):
    """Answers with its input as logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Constant(nn.Module):
    """Answers every sample with the same logits, whatever its input."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)


def batches(x: np.ndarray, y: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"x": x[at : at + 3], "y": y[at : at + 3]} for at in range(0, len(x), 3)]


@pytest.mark.parametrize("task", ["classify", "regress", "tag", "mask"])
def test_losses_add_up_to_the_whole(task: Any) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 4)).astype(np.float32)
    y = {
        "classify": random.integers(0, 4, 8), "regress": x[:, 0] + random.normal(size=8).astype(np.float32),
        "tag": (random.uniform(size=(8, 4)) > 0.5).astype(np.float32), "mask": random.integers(0, 5, (8, 6)),
    }[task]  # fmt: skip
    if task == "regress":
        x = x[:, :1]
    if task == "mask":
        x = random.normal(size=(8, 6, 5)).astype(np.float32)
    plain = evaluate(Echo(), batches(x, y), task)
    done = evaluate(Echo(), batches(x, y), task, one_by_one=True)
    assert plain.one_by_one is None and plain.metrics == done.metrics
    each = done.one_by_one
    assert each is not None and len(each.losses) == len(each.said) == len(each.wrong) == 8
    assert each.losses.mean() == pytest.approx(done.metrics["loss"], rel=1e-5)
    if task == "classify":
        assert 1 - each.wrong.mean() == pytest.approx(done.metrics["accuracy"]) and len(each.sure) == 8
    assert (np.array([one != other for one, other in zip(each.said, each.wanted, strict=True)]) == each.wrong).all()


def test_transcripts_and_texts_that_go_on() -> None:
    logits = np.full((2, 3, 3), -9.0, np.float32)
    logits[:, :, 1] = 9.0
    done = evaluate(
        Echo(), [{"x": logits, "y": np.array([[1], [2]])}], "transcribe", labels=("a", "b"), one_by_one=True
    )
    each = done.one_by_one
    assert each is not None
    assert each.said == ["a", "a"] and each.wanted == ["a", "b"] and each.losses.tolist() == [0.0, 1.0]
    tokens = [{"x": np.zeros((1, 2, 4), np.float32), "y": np.zeros((1, 2), np.int64)}]
    told = evaluate(Echo(), tokens, "language", one_by_one=True)
    assert told.one_by_one is not None and told.metrics == evaluate(Echo(), tokens, "language").metrics
    assert told.one_by_one.losses.tolist() == [pytest.approx(np.log(4))]


def kept(folder: Path, data: Any) -> Store:
    return prepare(data, seed=0, cache=folder / "cache", emit=lambda event: None)


def test_images_are_shown_worst_first(tmp_path: Path, digits: Path) -> None:
    store = kept(tmp_path, ImageData(kind="image", path=digits))
    model = Constant([5.0, 1.0, *([0.0] * 8)])
    done = evaluate(model, sweep(store, "test", 7), "classify", one_by_one=True)
    assert done.one_by_one is not None
    found = mistakes_of(store, done.one_by_one, digits)
    y = np.asarray(store.array("test", "y"))
    assert found.samples == len(y) and found.wrong == (y != 0).sum() and len(found.worst) == 12
    losses = [each.loss for each in found.worst]
    assert losses == sorted(losses, reverse=True)
    assert all(each.said == "0" and each.wanted not in {"0", "1"} and each.png for each in found.worst)
    assert all((digits / each.name).parent.name == each.wanted for each in found.worst)
    assert found.calibration is not None and sum(found.calibration.counts) == len(y)
    assert len(found.model_dump_json()) < 20_000


def test_texts_are_shown_as_their_tokens_spell_them(tmp_path: Path) -> None:
    table = tmp_path / "reviews.tsv"
    words = ["fine", "dull", "bright", "grey"]
    lines = [f"{words[at % 4]} film number {at} {'long ' * (at % 5)}\t{('good', 'bad')[at % 2]}" for at in range(120)]
    table.write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    store = kept(tmp_path, TextData(kind="text", path=table))
    order = sweep_order(store, "test")
    done = evaluate(Constant([1.0, 0.0]), sweep(store, "test", 4), "classify", one_by_one=True)
    assert done.one_by_one is not None
    found = mistakes_of(store, done.one_by_one, table)
    y = np.asarray(store.array("test", "y"))
    assert found.wrong == (y == 1).sum() and found.worst
    for each in found.worst:
        assert each.sample in order and y[each.sample] == 1 and "film" in each.text


@pytest.mark.slow
def test_rows_are_shown_by_their_columns(tmp_path: Path) -> None:
    table = tmp_path / "houses.csv"
    rows = [f"{20 + at % 50},{'town' if at % 3 else 'country'},{100 + 7 * at}" for at in range(200)]
    table.write_text("rooms,place,price\n" + "\n".join(rows) + "\n", encoding="utf-8")
    data = TableData.model_validate({"kind": "table", "path": table, "target": "price", "task": "regress"})
    store = kept(tmp_path, data)
    done = evaluate(Constant([0.0]), sweep(store, "test", 4), "regress", one_by_one=True)
    assert done.one_by_one is not None
    found = mistakes_of(store, done.one_by_one, table)
    assert found.calibration is None and len(found.worst) == 12
    for each in found.worst:
        assert each.row["place"] in {"town", "country"} and 19 < float(each.row["rooms"]) < 70
        assert (float(each.wanted.replace(",", "")) - 100) % 7 == pytest.approx(0, abs=0.02)


@pytest.mark.slow
def test_sounds_are_cut_to_what_a_page_holds(tmp_path: Path) -> None:
    import soundfile

    from thrifty.data.shown import SOUND_BYTES
    from thrifty.spec import AudioData

    random = np.random.default_rng(0)
    for at in range(30):
        for label in ("low", "high"):
            path = tmp_path / "sounds" / label / f"{at}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            wave = np.sin(np.arange(32_000) / (9 if label == "low" else 3)) + 0.1 * random.normal(size=32_000)
            soundfile.write(path, 0.2 * wave, 8_000)
    store = kept(tmp_path, AudioData(kind="audio", path=tmp_path / "sounds"))
    done = evaluate(Constant([0.0, 1.0]), sweep(store, "test", 4), "classify", one_by_one=True)
    assert done.one_by_one is not None
    found = mistakes_of(store, done.one_by_one, tmp_path / "sounds")
    heard = [each.wav for each in found.worst if each.wav]
    assert heard and sum(map(len, heard)) <= SOUND_BYTES
    assert all(each.name.endswith(".wav") for each in found.worst)
    elsewhere = mistakes_of(store, done.one_by_one, tmp_path / "nowhere")
    assert not any(each.wav for each in elsewhere.worst) and len(elsewhere.worst) == len(found.worst)


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True])
def test_windows_of_text_are_shown_hardest_first(tmp_path: Path, sources: Path, apart: bool) -> None:
    from thrifty.models.gpt import GPT
    from thrifty.spec import LanguageData

    data = LanguageData.model_validate(
        {"kind": "language", "path": sources, "files": "**/*.py", "vocabulary": 300, "length": 32}
    )
    store = kept(tmp_path, data)
    torch.manual_seed(0)
    model = GPT(vocabulary=store.dataset.vocabulary, length=32, width=16, layers=1, heads=2)
    batches = list(sweep(store, "test", 16, "packed" if apart else "padded"))[:4]
    plain, done = (evaluate(model, batches, "language", one_by_one=each) for each in (False, True))
    assert done.metrics["loss"] == pytest.approx(plain.metrics["loss"], rel=1e-6)
    each = done.one_by_one
    assert each is not None
    if apart:
        assert not len(each.losses), "documents lie apart, windows are none"
        return
    assert each.losses.mean() == pytest.approx(done.metrics["loss"], rel=0.02)
    found = mistakes_of(store, each, sources)
    losses = [one.loss for one in found.worst]
    assert losses == sorted(losses, reverse=True) and len(losses) == 12 and found.calibration is None
    texts = "".join(path.read_text(encoding="utf-8") for path in sorted(sources.rglob("*.py")))
    assert all(one.text[5:20] in texts and not one.said for one in found.worst)
