"""How well each label was told: the shares and F1 of scikit-learn, the best first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.report.told import told_rows


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Scikit-learn's figures, which take a second to load."""
    import sklearn.metrics

    return sklearn.metrics


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_rows_are_scikit_learns(theirs: Any, seed: int, labels: int) -> None:
    generator = np.random.default_rng(seed)
    said, wanted = generator.random((2, 30, labels)) < generator.random()
    counts = [tuple(map(int, each)) for each in np.stack([(said & wanted).sum(0), said.sum(0), wanted.sum(0)], 1)]
    rows = told_rows([str(number) for number in range(labels)], counts)
    right, found, f1, _ = theirs.precision_recall_fscore_support(wanted, said, zero_division=np.nan)
    assert sorted(row.label for row in rows) == [str(number) for number in range(labels)]
    for row in rows:
        at = int(row.label)
        for text, value, scale in ((row.f1, f1[at], 1), (row.right, right[at], 100), (row.found, found[at], 100)):
            assert text == "–" if np.isnan(value) else abs(float(text.split()[0]) - scale * value) <= 0.5
        assert (row.said, row.wanted) == (str(counts[at][1]), str(counts[at][2]))
    told = [float(row.f1) for row in rows if row.f1 != "–"]
    assert told == sorted(told, reverse=True)
