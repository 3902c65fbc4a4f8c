"""The benchmark of moves on a GPU: figures come out of what its cases say, and its texts are those of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks.gpu_moves import ONCE, STEPS, entrants, figures, table
from benchmarks.gpu_moves_run import packed, padded
from benchmarks.race import Finish, Race

MIB = 2**20


def finish(name: str, event: str = "measured", **said: Any) -> Finish:
    return Finish(name, said=({"event": event, "at_s": 1.0, **said},))


def steps(name: str, seconds: float, **more: Any) -> Finish:
    said = {"step_s": [seconds, seconds, 2 * seconds], "gpu_bytes": 100 * MIB, "losses": [2.0, 1.0], "compile_s": 0.0}
    return finish(name, **said | more)


def test_figures_are_of_what_cases_say() -> None:
    found = Race()
    found.finishes = {
        "odd": [steps("odd", 0.08, foreseen_s=[0.07, 0.09, 0.1], foreseen_bytes=99 * MIB)],
        "filled": [steps("filled", 0.04)],
        "kept": [steps("kept", 0.05), steps("kept", 0.05)],
        "offload": [
            steps("offload", 0.15, parameters=10**8, optimizer_s=[0.1], down_s=[0.01], up_s=[0.02], bytes=4 * 10**8)
        ],
        "texts": [finish("texts", **{"64_packed_s": [0.01, 0.03], "64_packed_tokens": 9.0, "64_packed_bytes": MIB})],
        "images": [finish("images", flips_beside_step_ms=[4.0, 2.0])],
        "ours": [finish("ours", "written", tokens=100, seconds=2.0, first_s=0.5, texts=[[1, 2, 3, 4]])],
        "transformers": [finish("transformers", "written", tokens=100, seconds=8.0, texts=[[1, 2, 9, 4]])],
    }
    samples = figures(found)
    assert samples["odd_step_ms"] == [80] and samples["odd_foreseen_ms"] == [90]
    assert samples["words_gain"] == [2] and "fp8_gain" not in samples
    assert samples["offload_added_ms"] == pytest.approx([100])
    assert samples["offload_added_foreseen_ms"] == pytest.approx([80])
    assert samples["offload_down_gb_per_second"] == pytest.approx([40])
    assert samples["texts_64_packed_step_ms"] == [10, 30]
    assert samples["images_flips_beside_step_ms"] == [4, 2]
    assert samples["writing_speedup_over_transformers"] == [4] and samples["writing_same_tokens"] == [0.5]
    lines = table(found, ["words", "offload"]).splitlines()
    assert len(lines) == 2 + len(STEPS["words"]) + len(STEPS["offload"])
    assert "| odd | 1 | 80.00 (80.00 to 160.00) | 90.0 (70.0 to 100.0) | 100 | 99 | 0.0 | 1.0000 |" in lines
    assert any("left out" in line for line in lines)


def test_every_other_round_runs_backwards_without_what_runs_once() -> None:
    first, second = (entrants(["words", "fp8", "texts"], number) for number in (0, 1))
    names = [each.name for each in first]
    assert names[0] == "odd" and {"fp8", "texts"} <= set(names)
    assert [each.name for each in second] == [name for name in reversed(names) if name not in ONCE]


def test_packed_texts_are_the_padded_ones() -> None:
    rows = [np.arange(1, 1 + length) for length in (3, 9, 5, 20)]
    one, other = padded(rows), packed(rows)
    assert one["x"].shape == (4, 20) and (one["x"] > 0).sum() == 37
    assert (other["y"] >= 0).sum() == 4 and other["x"].shape[0] == 1
    places = np.concatenate([other[name].ravel() for name in sorted(other) if name.startswith("places")])
    real = places[places < other["x"].shape[1]]
    assert sorted(real) == list(range(other["x"].shape[1]))
