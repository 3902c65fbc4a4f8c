"""A bundle as a directory of transformers: its own classes answer as the bundle does, from the same raw input."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from made_bundles import DECODERS, sound, write_language_bundle, write_text_bundle, write_wave_bundle

from thrifty import api
from thrifty.data.sounds.sound import Limits, read_sound
from thrifty.errors import BundleError, JobError
from thrifty.export import hugging_face
from thrifty.export.bundle import load_bundle
from thrifty.export.hugging_face import export_hugging_face

transformers_installed = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


@pytest.mark.slow
@transformers_installed
@pytest.mark.parametrize("family", DECODERS)
def test_a_language_model_writes_the_same_text_there(family: str, tmp_path: Path) -> None:
    import transformers

    write_language_bundle(tmp_path / "bundle", family=family)
    bundle = load_bundle(tmp_path / "bundle")
    report = export_hugging_face(bundle, tmp_path / "there")
    assert report["read_by"].startswith("transformers")
    assert report["max_difference"] <= report["tolerance"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "there")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "there")
    asked = tokenizer("the cat sat", return_tensors="pt")
    (text,) = model.generate(**asked, max_new_tokens=8, do_sample=False, pad_token_id=0)
    written = tokenizer.decode(text[asked["input_ids"].shape[1] :], skip_special_tokens=True)
    expected = bundle.predict("the cat sat", max_tokens=8, temperature=0)["completion"]
    assert written == expected


@pytest.mark.slow
@transformers_installed
def test_a_classifier_of_texts_gives_the_same_probabilities_there(tmp_path: Path) -> None:
    import transformers

    write_text_bundle(tmp_path / "bundle", family="bert_original")
    bundle = load_bundle(tmp_path / "bundle")
    export_hugging_face(bundle, tmp_path / "there")
    classify = transformers.pipeline("text-classification", model=str(tmp_path / "there"), top_k=None)
    (answer,) = classify(["the dog sat on the mat"])
    told = {each["label"]: each["score"] for each in answer}
    expected = bundle.predict("the dog sat on the mat")["probabilities"]
    assert told == pytest.approx(expected, abs=1e-5)


def test_it_is_read_back_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_language_bundle(tmp_path / "bundle", family="llama")
    monkeypatch.setattr(hugging_face.importlib.util, "find_spec", lambda _: None)
    report = api.export(tmp_path / "bundle", to="hf", folder=tmp_path / "there")["hf"]
    assert (report["read_by"], report["max_difference"]) == ("thrifty", 0.0)
    assert report["path"] == str(tmp_path / "there" / "model.safetensors")
    assert json.loads((tmp_path / "there" / "config.json").read_text())["eos_token_id"] == 0
    assert (tmp_path / "there" / "tokenizer.json").read_bytes() == (tmp_path / "bundle" / "tokenizer.json").read_bytes()
    monkeypatch.setattr(hugging_face, "TOLERANCE", -1.0)
    with pytest.raises(BundleError, match=r"'poet' answers otherwise in thrifty: difference 0, over -1"):
        api.export(tmp_path / "bundle", to="hf", folder=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    write_language_bundle(tmp_path / "bundle")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").write_text("")
    with pytest.raises(JobError, match=r"there' holds something else than a model\. Choose another folder"):
        export_hugging_face(load_bundle(tmp_path / "bundle"), tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["thesis.tex"]


def test_a_model_without_a_form_there_is_told(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "bundle")
    with pytest.raises(JobError, match=r"'bert-pico' has no form in Hugging Face's transformers"):
        export_hugging_face(load_bundle(tmp_path / "bundle"), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_model_with_layers_of_sizes_of_their_own_is_told(tmp_path: Path) -> None:
    write_text_bundle(tmp_path / "bundle", kept={"blocks.0.attention": 1})
    with pytest.raises(JobError, match="no config of transformers can say"):
        export_hugging_face(load_bundle(tmp_path / "bundle"), tmp_path / "there")
    assert not (tmp_path / "there").exists()


@pytest.mark.slow
@transformers_installed
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_recordings_are_heard_there_as_here(norm: str, tmp_path: Path) -> None:
    import transformers

    write_wave_bundle(tmp_path / "bundle", norm=norm)
    bundle = load_bundle(tmp_path / "bundle")
    export_hugging_face(bundle, tmp_path / "there")
    hear = transformers.pipeline("audio-classification", model=str(tmp_path / "there"), top_k=None)
    samples, _ = read_sound(sound(0.5, 16_000), Limits(0, 1))
    told = {each["label"]: each["score"] for each in hear(samples)}
    assert told == pytest.approx(bundle.predict(sound(0.5, 16_000))["probabilities"], abs=1e-5)


@pytest.mark.slow
@transformers_installed
def test_what_is_said_is_spelled_there_as_here(tmp_path: Path) -> None:
    import torch
    import transformers

    write_wave_bundle(tmp_path / "bundle", task="transcribe", norm="layer")
    bundle = load_bundle(tmp_path / "bundle")
    report = export_hugging_face(bundle, tmp_path / "there")
    assert report["max_difference"] <= report["tolerance"]
    processor = transformers.Wav2Vec2Processor.from_pretrained(tmp_path / "there")
    model = transformers.Wav2Vec2ForCTC.from_pretrained(tmp_path / "there").eval()
    raws = [sound(0.5, 16_000, 200.0), sound(0.3, 16_000, 3000.0)]
    waves = [read_sound(raw, Limits(0, 1))[0] for raw in raws]
    asked = processor(waves, sampling_rate=16_000, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**asked).logits
    ends = model._get_feat_extract_output_lengths(asked["attention_mask"].sum(1)).tolist()
    found = [processor.decode(each[:end].argmax(-1)) for each, end in zip(logits, ends, strict=True)]
    assert found == [bundle.predict(raw)["transcript"] for raw in raws]
    assert any(found)
    assert json.loads((tmp_path / "there" / "vocab.json").read_text()) == {
        token: number for number, token in enumerate(["<pad>", "|", *"abcdef"])
    }
