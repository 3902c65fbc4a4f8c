"""What is reached without deep learning, tuned on the validation split: the figure to beat, measured beside ours."""

from __future__ import annotations

from pathlib import Path

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
