"""What is reached without deep learning, tuned on the validation split: the figure to beat, measured beside ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thrifty.data import Store
from thrifty.spec import Table

# of n-grams up to so many characters, and inverse strengths of the penalty
LONGEST, STRENGTHS = (2, 3, 4), (1.0, 3.0, 10.0, 30.0)


def logistic_regression(folder: Path) -> dict[str, float]:
    """Return the test accuracy of a logistic regression on character n-grams, as ``baseline``.

    Counts are weighed by tf-idf (sublinear); n and penalty are those of the best validation accuracy.

    Args:
        folder: of ``train.tsv``, ``dev.tsv`` and ``test.tsv``, each with a header and rows of label and text.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, labels = {}, {}
    for part in ("train", "dev", "test"):
        rows = [line.split("\t") for line in (folder / f"{part}.tsv").read_text("utf-8").splitlines()[1:]]
        labels[part], texts[part] = [row[0] for row in rows], [row[1] for row in rows]
    best, accuracy = 0.0, 0.0
    for longest in LONGEST:
        counts = TfidfVectorizer(analyzer="char", ngram_range=(1, longest), sublinear_tf=True, min_df=2)
        train, dev, test = counts.fit_transform(texts["train"]), *map(counts.transform, (texts["dev"], texts["test"]))
        for strength in STRENGTHS:
            model = LogisticRegression(C=strength, solver="liblinear").fit(train, labels["train"])
            if (found := model.score(dev, labels["dev"])) > best:
                best, accuracy = found, model.score(test, labels["test"])
    return {"baseline": accuracy}


def boosted_trees(store: Store) -> dict[str, float]:
    """Return the test AUC, or RMSE in its own unit, of scikit-learn's HistGradientBoosting on a prepared table.

    It learns from the training and validation rows, of which it holds out a tenth itself to stop by. Numbers are as
    they were, empty cells NaN; categories are told as such.

    Returns:
        ``trees``, with all settings as they come, and ``more_trees``, with up to 1,000 rounds at half the rate.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import roc_auc_score, root_mean_squared_error

    table = store.dataset.table
    assert table is not None
    x = {part: as_it_was(store.array(part, "x"), table) for part in ("train", "validation", "test")}
    y = {part: np.asarray(store.array(part, "y")) for part in x}
    seen_x, seen_y = (np.concatenate([each["train"], each["validation"]]) for each in (x, y))
    categories = [at >= table.numbers for at in range(seen_x.shape[1])]
    found = {}
    for name, more in (("trees", {}), ("more_trees", {"max_iter": 1000, "learning_rate": 0.05})):
        settings = {"categorical_features": categories, "random_state": 0, "early_stopping": "auto", **more}
        if store.dataset.labels:
            told = HistGradientBoostingClassifier(**settings).fit(seen_x, seen_y).predict_proba(x["test"])[:, 1]
            found[name] = float(roc_auc_score(y["test"], told))
        else:
            told = HistGradientBoostingRegressor(**settings).fit(seen_x, seen_y).predict(x["test"])
            found[name] = float(root_mean_squared_error(y["test"], told)) * table.deviation
    return found


def as_it_was(x_NF: NDArray[np.float32], table: Table) -> NDArray[np.float64]:
    """Numbers out of their places among quantiles, NaN where a cell was empty; codes counted from 0 in each column."""
    numbers: list[NDArray[np.float64]] = []
    codes: list[NDArray[np.float64]] = []
    at, first = table.numbers, 1
    for column in table.columns:
        own = []
        for size in column.code_sizes:
            own.append(np.maximum(x_NF[:, at].astype(np.float64) - (first - 1), 0))
            at, first = at + 1, first + size
        if column.is_number:
            values = np.interp(x_NF[:, len(numbers)], np.linspace(0, 1, len(column.edges)), column.edges)
            numbers.append(np.where(own.pop() > 0, np.nan, values) if column.missing else values)
        codes += own
    return np.stack([*numbers, *codes], 1)
