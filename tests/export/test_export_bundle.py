"""A bundle reads back as it was written, survives kills, and no damage or malice gets through unnamed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_bundles import LABELS, image_dataset, pixels, png, write_image_bundle, write_language_bundle

from thrifty.data.images.image import fit
from thrifty.errors import BundleError, DataError, JobError, RequestError
from thrifty.export.bundle import Bundle, check_device, load_bundle, write_bundle
from thrifty.export.check import MAX_ARGUMENT, is_argument, is_name
from thrifty.models import build, resolve
from thrifty.models.init import initialise
from thrifty.spec import Spent


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    data = image_dataset()
    plan = resolve("resnet8", data)
    model = build(plan)
    initialise(model, "default", 3)
    info = write_bundle(
        tmp_path / "b", name="pets", version=7, task="classify", model=model, plan=plan, data=data, tokenizer=None,
        metrics={"accuracy": 0.9}, isa=("amx",), bill=Spent(joules=5.0),
    )  # fmt: skip
    bundle = load_bundle(tmp_path / "b")
    assert bundle.info == info
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["bundle.json", "model.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b"], "nothing is left beside it"
    for name, tensor in model.state_dict().items():
        assert torch.equal(bundle.model.state_dict()[name], tensor), name
    assert not bundle.model.training
    assert not any(parameter.requires_grad for parameter in bundle.model.parameters())


def test_predict_is_classify_with_names(image_bundle: Bundle) -> None:
    answer = image_bundle.predict(png(pixels(1)))
    direct = image_bundle.form.probabilities(pixels(1)[None])[0]
    assert tuple(answer["probabilities"]) == LABELS
    assert np.allclose(list(answer["probabilities"].values()), direct)
    assert answer["label"] == LABELS[int(direct.argmax())]
    assert answer["probability"] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_an_image_of_another_size_is_fitted(image_bundle: Bundle) -> None:
    assert image_bundle.form.row(png(pixels(1, side=40))).shape == (16, 16, 3)


@pytest.mark.parametrize("crop", ["center", "none", "letterbox"])
def test_an_image_is_fitted_as_the_training_images_were(crop: str, image_bundle: Bundle) -> None:
    data = image_bundle.info.data.model_copy(update={"crop": crop})
    bundle = Bundle(image_bundle.info.model_copy(update={"data": data}), image_bundle.folder, image_bundle.model, None)
    wide = pixels(1, side=40)[:20]
    assert np.array_equal(bundle.form.row(png(wide)), fit(wide, size=16, color="rgb", crop=crop))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 9), extra=st.integers(0, 5))
def test_an_answer_does_not_depend_on_its_batch(image_bundle: Bundle, seed: int, count: int, extra: int) -> None:
    own = np.stack([pixels(seed + n) for n in range(count)])
    others = np.stack([pixels(5000 + n) for n in range(extra + 1)])
    alone = np.concatenate([image_bundle.form.probabilities(row[None]) for row in own])
    together = image_bundle.form.probabilities(np.concatenate([own, others]))[:count]
    assert np.allclose(alone, together, atol=1e-5)


def test_images_are_classified_in_pieces_of_bounded_size(image_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.stack([pixels(n) for n in range(7)])
    whole = image_bundle.form.probabilities(images)
    monkeypatch.setattr("thrifty.export.forms.images.ROWS_AT_ONCE", 3)
    assert np.allclose(image_bundle.form.probabilities(images), whole, atol=1e-5)
    assert image_bundle.form.probabilities(images[:0]).shape == (0, 3)


def test_wrong_input_is_named(image_bundle: Bundle, language_bundle: Bundle) -> None:
    with pytest.raises(DataError):
        image_bundle.predict(b"no image")
    with pytest.raises(RequestError, match=r"uint8 \[N, 16, 16, 3\]"):
        image_bundle.form.probabilities(np.zeros((1, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(RequestError, match="takes the bytes of one image"):
        image_bundle.predict("a prompt")
    with pytest.raises(RequestError, match="takes a prompt, not bytes"):
        language_bundle.predict(b"raw")
    with pytest.raises(RequestError, match="max_tokens 0"):
        language_bundle.form.complete("a", max_tokens=0)


def test_completion_is_decided_by_its_arguments(language_bundle: Bundle) -> None:
    once = language_bundle.form.complete("the cat", max_tokens=12, seed=5)
    assert once == language_bundle.form.complete("the cat", max_tokens=12, seed=5)
    assert language_bundle.predict("the cat", max_tokens=12, seed=5) == {"completion": once}
    seeds = {language_bundle.form.complete("the cat", max_tokens=12, seed=seed) for seed in range(6)}
    assert len(seeds) > 1
    greedy = {language_bundle.form.complete("the cat", max_tokens=5, temperature=0, seed=seed) for seed in range(3)}
    assert len(greedy) == 1


def test_a_completion_ends_where_the_text_does(language_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = language_bundle.form.tokenizer.encode("dog").ids
    monkeypatch.setattr("thrifty.models.generate.generate", lambda *a, **k: [*tokens, 0, *tokens])
    assert language_bundle.form.complete("the") == "dog"


@pytest.mark.parametrize("prompt", ["", "x" * 500, "ß 語 \n\t"])
def test_any_prompt_is_continued(language_bundle: Bundle, prompt: str) -> None:
    assert isinstance(language_bundle.form.complete(prompt, max_tokens=3), str)


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.json"
    info = json.loads(path.read_text())
    for key, value in changes.items():
        place = info
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(json.dumps(info))


def _rehash(folder: Path) -> None:
    names = [p.name for p in folder.iterdir() if p.name != "bundle.json"]
    _edit(folder, files={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names})


def _link_weights(folder: Path) -> None:
    shutil.move(folder / "model.safetensors", folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


def _other_weights(folder: Path) -> None:
    write_image_bundle(folder.parent / "other", channels=1)
    shutil.copy(folder.parent / "other" / "model.safetensors", folder)
    _rehash(folder)


def _no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle" * 10)
    _rehash(folder)


def _huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    _rehash(folder)


def _own(folder: Path, **arguments: Any) -> None:
    _edit(folder, model__family="own", model__arguments=arguments)


def _hf(folder: Path, config: Any, task: str = "classify") -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    arguments = {"config": text, "task": task, "weights": "", "revision": ""}
    _edit(folder, model__family="hf", model__arguments=arguments)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no info": (lambda f: (f / "bundle.json").unlink(), "lacks its file .*bundle.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "lacks its file .*model.safetensors"),
    "cut info": (lambda f: (f / "bundle.json").write_text('{"format": 1'), "bundle.json' is damaged"),
    "huge info": (lambda f: (f / "bundle.json").write_bytes(b" " * (5 * 2**20)), "over the"),
    "info of another key": (lambda f: _edit(f, surprise=1), "bundle.json' is damaged at surprise"),
    "later format": (lambda f: _edit(f, format=3, later=1), "bundle format 3.*Upgrade"),
    "an unknown engine": (lambda f: _edit(f, engine="openvin"), "engine 'openvin'.*Did you mean 'openvino'.*Upgrade"),
    "a precision it lacks": (lambda f: _edit(f, precision="int4"), "'int4', and the engine 'torch' computes in fp32"),
    "int8 of what does not write": (lambda f: _edit(f, precision="int8"), "torch has no form in int8 of"),
    "files of another engine": (lambda f: _edit(f, engine="onnx"), "names the files .*has: model.onnx"),
    "cut weights": (lambda f: os.truncate(f / "model.safetensors", 100), "model.safetensors' is damaged: its sha256"),
    "linked weights": (_link_weights, "is not a plain file"),
    "weights of another model": (_other_weights, "of shape"),
    "pickle": (_no_safetensors, "no safetensors file"),
    "huge header": (_huge_header, "no safetensors file"),
    "unsafe name": (lambda f: _edit(f, name="../x"), "unsafe name"),
    "version 0": (lambda f: _edit(f, version=0), "the version 0"),
    "unknown task": (lambda f: _edit(f, task="classfy"), "Did you mean 'classify'"),
    "path traversal": (lambda f: _edit(f, files={"../../etc/passwd": "0"}), "names the files"),
    "absolute path": (lambda f: _edit(f, files={"/etc/passwd": "0", "model.safetensors": "0"}), "names the files"),
    "unknown family": (lambda f: _edit(f, model__family="restnet"), "Did you mean 'resnet'"),
    "a family of code": (lambda f: _edit(f, model__family="os:system"), "the model family 'os:system'"),
    "a huge model": (lambda f: _edit(f, model__arguments={"width": 10**12}), "argument width=1000000000000"),
    "a deep model": (lambda f: _edit(f, model__arguments__blocks=[1, 5000, 1]), "argument blocks"),
    "a nameless depth": (lambda f: _edit(f, model__arguments__blocks=["a"]), "argument blocks|cannot be built"),
    "units of no place": (lambda f: _edit(f, model__kept={"layer9.conv1": 4}), "no units at 'layer9.conv1'"),
    "more units than there are": (lambda f: _edit(f, model__kept={"layer1.0.conv1": 99}), "16 units at"),
    "a rank of nothing": (lambda f: _edit(f, model__ranks={"fc": 0}), "changed layer fc=0"),
    "a huge rank": (lambda f: _edit(f, model__ranks={"fc": 10**9}), "changed layer fc=1000000000"),
    "a norm that is none": (lambda f: _edit(f, model__folded=["fc"]), "no norm 'fc' to fold"),
    "too many changes": (lambda f: _edit(f, model__folded=["bn1"] * 9000), "9000 changed layers"),
    "an unknown argument": (lambda f: _edit(f, model__arguments={"surprise": 1}), "cannot be built"),
    "a deep argument": (lambda f: _edit(f, model__arguments={"a": {"b": 1}}), "argument a="),
    "code of the library": (lambda f: _own(f, function="os:abort", sha256="0" * 64), "'os:abort' is not known here"),
    "a way out of the cache": (lambda f: _own(f, function="a:b", sha256="../x"), "'a:b' is not known here"),
    "no function": (lambda f: _own(f, function=7, sha256="0"), "names no function"),
    "no config": (lambda f: _hf(f, "[1]"), "config that is not one"),
    "a config of nothing": (lambda f: _hf(f, {"model_type": "nothing"}), "cannot be built"),
    "a deep config": (lambda f: _hf(f, {"model_type": "vit", "num_hidden_layers": 10**5}), "num_hidden_layers=100000"),
    "many depths": (lambda f: _hf(f, {"model_type": "resnet", "depths": [900] * 900}), "config depths=900"),
    "a huge config": (lambda f: _hf(f, {"model_type": "vit", "image_size": 10**12}), "image_size=1000000000000"),
    "another task": (lambda f: _hf(f, {"model_type": "vit"}, task="language"), "not for task 'classify'"),
    "labels too few": (lambda f: _edit(f, data__labels=["a", "b"]), "values for 2 names|of shape"),
    "double labels": (lambda f: _edit(f, data__labels=["a", "a", "b"]), "not all different"),
    "zero std": (lambda f: _edit(f, data__std=[0, 1, 1]), "stds"),
    "not square": (lambda f: _edit(f, data__shape=[3, 16, 8]), "images of shape"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.slow
def test_every_damage_is_named(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "bundle"
    write_image_bundle(folder)
    spoil, says = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(BundleError, match=says):
        load_bundle(folder)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    write_language_bundle(folder)
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(BundleError, match=r"tokenizer\.json' is damaged: its sha256"):
        load_bundle(folder)
    _rehash(folder)
    with pytest.raises(BundleError, match=r"bundle is damaged: tokenizer .*tokenizer\.json"):
        load_bundle(folder)


def test_no_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle folder .*nowhere"):
        load_bundle(tmp_path / "nowhere")


def test_what_cannot_be_meant_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be named 'a/b'"):
        write_image_bundle(tmp_path / "b", name="a/b")
    with pytest.raises(BundleError, match="the version 0"):
        write_image_bundle(tmp_path / "b", version=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").touch()
    with pytest.raises(JobError, match="something else than a bundle"):
        write_image_bundle(tmp_path / "photos")
    assert (tmp_path / "photos" / "one.jpg").exists()


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_image_bundle(tmp_path / "b", seed=1)
    before = (tmp_path / "b" / "bundle.json").read_bytes()
    data = image_dataset()
    plan = resolve("resnet8", data)
    model = build(plan)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(BundleError, match="hold NaN"):
        write_bundle(
            tmp_path / "b", name="pets", version=2, task="classify", model=model, plan=plan, data=data, tokenizer=None,
            metrics={}, isa=(), bill=Spent(),
        )  # fmt: skip
    assert (tmp_path / "b" / "bundle.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_bundle_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr("thrifty.export.folder._exchange", lambda one, other: False)
    write_image_bundle(tmp_path / "b", version=1)
    write_image_bundle(tmp_path / "b", version=2)
    assert load_bundle(tmp_path / "b").info.version == 2
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_bundle_that_stood_aside_at_a_kill_comes_back(tmp_path: Path) -> None:
    write_image_bundle(tmp_path / "b")
    (tmp_path / "b").rename(tmp_path / ".b.old")
    assert load_bundle(tmp_path / "b").info.name == "pets"


@pytest.mark.slow
def test_a_kill_at_any_instant_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """A child writes version after version; killed at many instants, what it leaves always loads."""
    child = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from made_bundles import write_image_bundle
        for version in range(1, 1000):
            write_image_bundle(Path(sys.argv[1]), version=version)
            print(version, flush=True)
        """
    )
    folder = tmp_path / "bundle"
    command = [sys.executable, "-c", child, str(folder), str(Path(__file__).parent)]
    for attempt in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(2 + attempt):
                last = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
        assert load_bundle(folder).info.version in (last, last + 1, last + 2)


@given(st.text(max_size=120))
def test_a_safe_name_is_one_path_component(name: str) -> None:
    if is_name(name):
        assert Path("/base", name).parent == Path("/base")
        assert "/" not in name
        assert ":" not in name


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8))
@pytest.mark.slow
def test_arguments_are_bounded(value: Any) -> None:
    if is_argument(value) and not isinstance(value, bool | str | list):
        assert math.isfinite(value)
        assert isinstance(value, float) or 0 <= value <= MAX_ARGUMENT


def test_the_nouns_come_without_torch() -> None:
    probe = "import sys, thrifty.export.bundle; print(*[m for m in ('torch', 'cv2', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("device", "says"), [("cudda", "'cuda'"), ("cuda", "finds no GPU")])
def test_a_device_that_is_none_here_is_refused(image_bundle: Bundle, device: str, says: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(JobError) as raised:
        load_bundle(image_bundle.folder, device=device)
    assert says in str(raised.value)


def test_a_gpu_computes_bundles_of_torch_alone(image_bundle: Bundle) -> None:
    info = image_bundle.info.model_copy(update={"engine": "openvino"})
    with pytest.raises(JobError, match="computed by 'openvino'"):
        check_device("cuda", info)
    check_device("cpu", info)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore")
def test_a_gpu_answers_as_a_processor_does(image_bundle: Bundle, language_bundle: Bundle, text_bundle: Bundle) -> None:
    asks: dict[Any, dict[str, Any]] = {png(pixels(1)): {}, "the cat sat": {"max_tokens": 20, "temperature": 0.0}}
    for bundle, raw in ((image_bundle, png(pixels(1))), (language_bundle, "the cat sat"), (text_bundle, "a fine cat")):
        there = load_bundle(bundle.folder, device="cuda")
        found, expected = (each.predict(raw, **asks.get(raw, {})) for each in (there, bundle))
        assert next(iter(found.values())) == next(iter(expected.values()))
        assert list(found.get("probabilities", {}).values()) == pytest.approx(
            list(expected.get("probabilities", {}).values()), abs=1e-3
        )
