"""`Limits`: the most that the server takes, holds and waits for; each bound is what a stranger can cost it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from thrifty.errors import JobError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one server.

    Attributes:
        body_bytes: of one request, inflated; over it 413.
        held_bytes: of all requests being read or answered; over it 503.
        body_seconds: for a body to arrive; over it 408.
        deadline_seconds: from a whole body to its answer, as TensorFlow Serving's REST timeout; over it 504.
        request_rows: images, texts or prompts of one request; over it 400.
        batch_rows: computed at once, at most; how many of them is measured.
        queue_rows: waiting for one model; over it, or when they would take longer than the deadline, 503.
        max_pixels: of one image, known before it is decoded; over it 400.
        max_tokens: of one completion; over it 400.
        beam: transcripts of a recording that are followed at once; over it 400.
        prompt_bytes: of one prompt or text; over it 400.
        cache_bytes: of keys and values that one language model keeps of the texts that it writes.
        texts: written at once by one language model.
        text_seconds: for a text to be written that is asked for by OpenAI's protocol; over it 504.
        token_seconds: between two tokens of a text; no more texts begin beside it while they take longer.
        warm_seconds: for the first answer of a version that is loaded while others are served.
        probe_seconds: between made-up inputs to a model that answers nothing else, which prove that it still would.
        drain_seconds: for what waits to be answered once the server is told to stop.

    >>> Limits(queue_rows=8, request_rows=8).queue_rows
    8
    """

    body_bytes: int = 32 * 2**20
    held_bytes: int = 256 * 2**20
    body_seconds: float = 30.0
    deadline_seconds: float = 30.0
    request_rows: int = 1024
    batch_rows: int = 64
    queue_rows: int = 1024
    max_pixels: int = 50_000_000
    max_tokens: int = 1024
    beam: int = 8
    prompt_bytes: int = 64 * 2**10
    cache_bytes: int = 2**30
    texts: int = 64
    text_seconds: float = 600.0
    token_seconds: float = 0.25
    warm_seconds: float = 60.0
    probe_seconds: float = 10.0
    drain_seconds: float = 30.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not (value > 0 and math.isfinite(value)):
                raise JobError(f"limit {each.name} is {value}", mend="A limit is a finite number above zero.")
        if self.queue_rows < self.request_rows:
            raise JobError(
                f"limit queue_rows {self.queue_rows} is below request_rows {self.request_rows}",
                mend="Else a request that is allowed could never be queued.",
            )
        if self.held_bytes < self.body_bytes:
            raise JobError(f"limit held_bytes {self.held_bytes} is below body_bytes {self.body_bytes}")
