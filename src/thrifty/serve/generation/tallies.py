"""What is counted of texts that language models write, for Prometheus."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from thrifty.serve.generation.pool import Pool

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Tallies:
    """Counters and histograms of the texts of one app, by the model's label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        model = ("model",)
        self._read = Counter("thrifty_prompt_tokens", "Tokens of prompts.", model, registry=registry)
        self._shared = Counter(
            "thrifty_prefix_tokens", "Tokens of prompts that another text had read.", model, registry=registry
        )
        self._written = Counter("thrifty_generated_tokens", "Tokens written.", model, registry=registry)
        self._first = Histogram(
            "thrifty_first_token_seconds",
            "From a prompt's arrival to its first new token.",
            model,
            buckets=SECONDS,
            registry=registry,
        )
        self._each = Histogram(
            "thrifty_token_seconds",
            "Between two tokens of a text, in its mean.",
            model,
            buckets=SECONDS,
            registry=registry,
        )
        self._texts = Gauge("thrifty_texts", "Texts being written.", model, registry=registry)
        self._pages = Gauge(
            "thrifty_cache_pages",
            "Pages of keys and values: used, kept for prompts, free.",
            ("model", "state"),
            registry=registry,
        )

    def watch(self, model: str, pool: Callable[[], Pool]) -> None:
        """Ask this pool for its pages, whenever they are looked at."""
        self._pages.labels(model, "used").set_function(lambda: pool().used)
        self._pages.labels(model, "kept").set_function(lambda: pool().kept)
        self._pages.labels(model, "free").set_function(lambda: pool().free)

    def begun(self, model: str, prompt_tokens: int, shared: int, seconds: float) -> None:
        """Count a text's first token, so many seconds after it was asked for, and what of its prompt was shared."""
        self._read.labels(model).inc(prompt_tokens)
        self._shared.labels(model).inc(shared)
        self._first.labels(model).observe(seconds)

    def written(self, model: str, tokens: int, texts: int) -> None:
        """Count the tokens of a step, and say how many texts are being written."""
        self._written.labels(model).inc(tokens)
        self._texts.labels(model).set(texts)

    def ended(self, model: str, tokens: int, seconds: float) -> None:
        """Count a text that ended, so many seconds after its first token."""
        if tokens > 1:
            self._each.labels(model).observe(seconds / (tokens - 1))

    def forget(self, model: str) -> None:
        """Let go of a model that left."""
        for labels in ((model, "used"), (model, "kept"), (model, "free")):
            with contextlib.suppress(KeyError):  # of what writes no texts there are none
                self._pages.remove(*labels)
