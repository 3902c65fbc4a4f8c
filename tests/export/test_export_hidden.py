"""A bundle that tells hidden words: [MASK] in a text is filled with what the model finds likeliest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from made_bundles import export_onnx, onnx_session, write_text_bundle

from thrifty.errors import RequestError
from thrifty.export.bundle import Bundle, load_bundle

MASK = 4


@pytest.fixture(scope="module", params=["bert", "bert_original"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundles") / request.param
    write_text_bundle(folder, family=request.param, task="mask")
    return load_bundle(folder)


def test_hidden_words_are_the_models_likeliest(bundle: Bundle) -> None:
    tokens = bundle.form.row("the [MASK] sat on the[MASK]")
    assert tokens.count(MASK) == 2
    with torch.no_grad():
        logits_TV = bundle.model(torch.tensor([tokens]))[0]
    logits_TV[:, :5] = -torch.inf
    answer = bundle.predict("the [MASK] sat on the[MASK]")
    assert len(answer["words"]) == 2
    for told, place in zip(answer["words"], [at for at, token in enumerate(tokens) if token == MASK], strict=True):
        best, numbers = logits_TV[place].softmax(0).topk(5)
        assert list(told.values()) == pytest.approx(best.tolist(), rel=1e-4)
        assert list(told) == [bundle.form._tokenizer.id_to_token(int(number)) for number in numbers]
    assert "[MASK]" not in answer["filled"]
    assert "sat on the" in answer["filled"]


def test_an_answer_does_not_depend_on_its_batch(bundle: Bundle) -> None:
    rows = [bundle.form.row(text) for text in ("[MASK]", "the cat [MASK] on the mat and the dog", "a [MASK] b")]
    together = bundle.form.answers(rows)
    assert [each["filled"] for each in together] == [bundle.form.answers([row])[0]["filled"] for row in rows]


@pytest.mark.parametrize("text", ["the cat sat", "", "the cat " * 20 + "[MASK]"])
def test_a_text_that_hides_nothing_is_refused(bundle: Bundle, text: str) -> None:
    with pytest.raises(RequestError, match=r"hides no word in its first 16 tokens\. Write \[MASK\] in its place"):
        bundle.predict(text)


@pytest.mark.slow
def test_it_is_exported(bundle: Bundle, tmp_path: Path) -> None:
    assert export_onnx(bundle, tmp_path)["max_difference"] < 1e-4
    session = onnx_session(tmp_path / "model.onnx")
    tokens = torch.randint(1, bundle.info.data.vocabulary, (2, 7))
    (found,) = session.run(["logits"], {"tokens": tokens.numpy()})
    assert found.shape == (2, 7, bundle.info.data.vocabulary)
