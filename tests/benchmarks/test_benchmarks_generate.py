"""Figures of texts written at once, from what entrants say."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.generate import entrants, figures, same, table
from benchmarks.race import Finish, Race


def finish(name: str, seconds: float, texts: list[list[int]]) -> Finish:
    written = {"event": "written", "tokens": 6, "seconds": seconds, "cpu_s": 2 * seconds, "texts": texts}
    return Finish(name, said=(written, {"event": "done", "at_s": 1.0}), peak_bytes=2**20)


def test_figures_are_ratios_of_tokens_a_second_round_by_round() -> None:
    texts = [[1, 2, 3], [4, 5, 6]]
    found = Race(
        finishes={
            "ours": [finish("ours", 1.0, [[1, 2, 3], [4, 9, 6]]), finish("ours", 2.0, texts)],
            "transformers": [finish("transformers", 3.0, texts), finish("transformers", 8.0, texts)],
        }
    )
    samples = figures(found)
    assert samples["generate_speedup"] == [3.0, 4.0]
    assert samples["generate_share_of_genai"] == [] == samples["generate_same_tokens_genai"]
    assert samples["generate_same_tokens_ours"] == [pytest.approx(4 / 6), 1.0]
    assert "| ours | 2 | 4.5 (3 to 6) |" in table(found)


def test_texts_that_end_early_are_not_the_same() -> None:
    assert same([[1]], [[1, 2]]) == 0.5


def test_everybody_is_given_the_same_work(tmp_path: Path) -> None:
    found = entrants(tmp_path, 9)(0)
    assert [each.name for each in found][:4] == ["ours", "ours_int8", "ours_fp32", "transformers"]
    assert all('"tokens": 9' in each.command[-1] for each in found)
