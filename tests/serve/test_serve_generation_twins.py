"""A model of transformers that ours compute is served as our own are: by OpenAI's routes, its tokens as likely."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import openai
import pytest
import torch
from made_bundles import OF_TRANSFORMERS, write_bundle_of_transformers
from real_server import running

from thrifty.export.bundle import load_bundle

# loading transformers alone takes seconds
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed"),
]


@pytest.mark.parametrize("kind", OF_TRANSFORMERS)
def test_it_is_written_by_ours(tmp_path: Path, kind: str) -> None:
    write_bundle_of_transformers(tmp_path / "bundle", kind=kind)
    bundle = load_bundle(tmp_path / "bundle")
    prompt, expected = [*range(5, 25)], list[float]()
    with running([bundle]) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as ask:
        assert [model.id for model in ask.models.list()] == ["teller"]
        found = ask.completions.create(model="teller", prompt=prompt, max_tokens=12, temperature=0, logprobs=1)
    told = found.choices[0].logprobs
    assert told is not None and told.token_logprobs is not None
    with torch.inference_mode():
        for _ in told.token_logprobs:
            logits_V = bundle.model(torch.tensor([prompt]))[0, -1].log_softmax(-1)
            expected.append(float(logits_V.max()))
            prompt.append(int(logits_V.argmax()))
    assert len(expected) > 2 and told.token_logprobs == pytest.approx(expected, abs=1e-3)
