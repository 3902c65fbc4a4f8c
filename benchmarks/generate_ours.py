"""Texts written at once by the server's writer, in a process of its own, telling what happens as the peers do.

``python -m benchmarks.generate_ours WORK``, as JSON: folder, precision, threads, streams, prompt, tokens, device, and
tokens to warm up with.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from torch import nn

from benchmarks.peers.talk import Talk
from thrifty.models import build, exchange
from thrifty.models.init import initialise
from thrifty.models.quantised import quantised
from thrifty.models.wishes import Wishes
from thrifty.serve.generation.engine import Engine
from thrifty.serve.generation.order import Order, Piece
from thrifty.serve.generation.turn import NO_MOVES, Outcome, Room, Turn
from thrifty.serve.generation.writer import Writer
from thrifty.serve.limits import Limits
from thrifty.serve.metrics import Metrics
from thrifty.spec import ModelPlan

SIZES = {"vocabulary": 50_257, "length": 1_024, "layers": 12, "width": 768, "heads": 12}
PLAN = ModelPlan(name="gpt2", family="gpt", arguments=SIZES)
_DONE = "written"
_SECONDS = 1800.0


def write_models(folder: Path) -> Path:
    """Write random weights and a tokenizer of as many words in Hugging Face's layout, once."""
    if (folder / _DONE).exists():
        return folder
    model = build(PLAN)
    initialise(model, "xavier_normal", 0)
    # some tools want a token that ends a text; nobody is to heed it
    exchange.save(model, PLAN, folder, bos_token_id=SIZES["vocabulary"] - 1, eos_token_id=SIZES["vocabulary"] - 1)
    tokenizer = Tokenizer(models.WordLevel({f"w{each} ": each for each in range(SIZES["vocabulary"])}, "w0 "))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0 "}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    (folder / _DONE).touch()
    return folder


def prompts(work: dict[str, Any]) -> list[list[int]]:
    """The same prompts for everybody: a row of numbers that looks like no order."""
    streams, length = work["streams"], work["prompt"]
    return [[(7_919 * (row * length + at) + 13) % 50_000 for at in range(length)] for row in range(streams)]


class Own:
    """The engine, made by the thread that computes, as the server's worker has one thread that does both.

    Where two threads of a process have used torch's, each keeps helpers of its own: with more of them than cores
    libgomp has all of them sleep between any two operators, and a step of GPT-2 takes 440 switches instead of two.
    """

    def __init__(self, work: dict[str, Any], limits: Limits) -> None:
        self._work, self._limits = work, limits
        self._engine: Engine | None = None

    @property
    def cpu_seconds(self) -> float:
        """Of the thread that asks."""
        return time.thread_time()

    def begin(self) -> Room:
        """Read the model and lay it out, once."""
        if self._engine is None:
            limits = self._limits
            self._engine = Engine(read_model(self._work), cache_bytes=limits.cache_bytes, texts=limits.texts)
        return self._engine.room

    def take(
        self, turns: Sequence[Turn], *, fresh: Sequence[int] = (), moves: Mapping[int, int] = NO_MOVES
    ) -> list[Outcome]:
        """Take a step."""
        assert self._engine is not None
        return self._engine.take(turns, fresh=fresh, moves=moves)


def read_model(work: dict[str, Any]) -> nn.Module:
    """Read the model in a precision, where it is to be computed."""
    model = build(PLAN)
    exchange.load_weights(model, PLAN, Path(work["folder"]))
    model = model.eval().requires_grad_(False).to(work.get("device", "cpu"))
    if work["precision"] == "int8":
        return quantised(model)
    return model.to(torch.bfloat16) if work["precision"] == "bf16" else model


class Stream:
    """Hears of one text."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.first = 0.0
        self.tokens: list[int] = []

    def __call__(self, piece: Piece | Exception) -> None:
        if not isinstance(piece, Piece):
            raise piece
        self.first = self.first or time.monotonic()
        self.tokens += [each.token for each in piece.told]
        if piece.end:
            self.ended.set()


def write(writer: Writer, work: dict[str, Any], tokens: int, *, told: bool = False) -> list[Stream]:
    """Have all texts written, and wait for the last."""
    streams = [Stream() for _ in range(work["streams"])]
    orders = [
        Order(prompt=prompt, max_tokens=tokens, wishes=Wishes(0.0), growing=True, likeliest=0 if told else None)
        for prompt in prompts(work)
    ]
    writer.write(list(zip(orders, streams, strict=True)), deadline=time.monotonic() + _SECONDS)
    for stream in streams:
        assert stream.ended.wait(_SECONDS)
    return streams


def main() -> None:
    """Write the texts once to warm up, once for the time, and once more to tell the tokens."""
    talk, work = Talk(), json.loads(sys.argv[1])
    torch.set_num_threads(work["threads"])
    tokenizer = Tokenizer.from_file(str(Path(work["folder"]) / "tokenizer.json"))
    form: Any = SimpleNamespace(tokenizer=tokenizer, end=-1)
    limits = Limits(max_tokens=1_024)
    writer = Writer(form, Own(work, limits), length=SIZES["length"], label="gpt2:1", limits=limits, metrics=Metrics())
    writer.start()
    write(writer, work, work.get("warm", 4))
    talk.say("ready", versions={"torch": torch.__version__}, precision=work["precision"])
    begin, cpu = time.monotonic(), time.process_time()
    streams = write(writer, work, work["tokens"])
    seconds, used = time.monotonic() - begin, time.process_time() - cpu
    first = sum(stream.first - begin for stream in streams) / len(streams)
    texts = [stream.tokens for stream in write(writer, work, work["tokens"], told=True)]
    count = work["streams"] * work["tokens"]
    talk.say("written", tokens=count, seconds=seconds, cpu_s=used, first_s=first, texts=texts)
    writer.close(10.0)
    talk.done()


if __name__ == "__main__":
    main()
