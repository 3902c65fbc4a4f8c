"""A language model in int8 is written many texts at once by torch: small, near, and each text to the bit its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_bundles import write_language_bundle

from thrifty.errors import JobError
from thrifty.export.bundle import Bundle, load_bundle, rewrite_bundle, torch_model
from thrifty.export.forms.prompts import Prompts
from thrifty.export.writing import writing_model
from thrifty.models.gpt import GPT
from thrifty.models.quantised import QuantisedDecoder
from thrifty.serve.generation.engine import Engine
from thrifty.serve.generation.order import Order, Piece, Told
from thrifty.serve.generation.writer import Writer
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics

SOON = 30.0
LENGTH = 160


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("plain") / "bundle"
    write_language_bundle(folder, scheme="xavier_normal", length=LENGTH)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def whole(plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("whole") / "bundle"
    info, apart = rewrite_bundle(folder, plain, engine="torch", precision="int8")
    assert (info.engine, info.precision) == ("torch", "int8") and apart is not None and 0 < apart < 0.1
    return load_bundle(folder)


def test_its_weights_take_a_fourth(plain: Bundle, whole: Bundle) -> None:
    def size(folder: Path) -> int:
        return (folder / "model.safetensors").stat().st_size

    # positions and norms are kept as they were
    positions = LENGTH * 32 * 4
    assert size(whole.folder) - positions < 0.4 * (size(plain.folder) - positions)
    assert isinstance(whole.model, QuantisedDecoder)
    assert isinstance(torch_model(whole, plain=True), GPT)
    assert whole.predict("the cat", max_tokens=3, temperature=0)["completion"]


def test_a_gpu_has_no_such_kernels(whole: Bundle) -> None:
    with pytest.raises(JobError, match="in int8, whose kernels"):
        load_bundle(whole.folder, device="cuda")


def told(writer: Writer, prompts: Sequence[list[int]]) -> list[list[Told]]:
    found: list[list[Told]] = [[] for _ in prompts]
    ended = [threading.Event() for _ in prompts]

    def tell(row: int, piece: Piece | Exception) -> None:
        assert isinstance(piece, Piece), piece
        found[row] += piece.told
        if piece.end:
            ended[row].set()

    orders = [(Order(prompt=each, max_tokens=12, likeliest=2), lambda piece, row=row: tell(row, piece))
              for row, each in enumerate(prompts)]  # fmt: skip
    writer.write(orders, deadline=time.monotonic() + SOON)
    assert all(each.wait(SOON) for each in ended)
    return found


@pytest.mark.slow
def test_a_text_is_to_the_bit_what_it_is_alone(whole: Bundle) -> None:
    assert isinstance(whole.form, Prompts)
    limits = Limits()
    model = writing_model(torch_model(whole), whole.info.model, LENGTH)
    engine = Engine(model, cache_bytes=2**24, texts=8)
    writer = Writer(whole.form, engine, length=LENGTH, label="m:1", limits=limits, metrics=Metrics())
    writer.start()
    prompts = [[5], [7, 8, 9], [*range(4, 90)], [*range(4, 90)], [11] * 40]
    together = told(writer, prompts)
    assert [told(writer, [each])[0] for each in prompts] == together
    writer.close(SOON)
