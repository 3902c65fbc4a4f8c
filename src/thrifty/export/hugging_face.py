"""A bundle as a directory of Hugging Face's transformers: config, weights, tokenizer; read back and compared."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from thrifty.errors import BundleError, JobError
from thrifty.export.bundle import Bundle, torch_model
from thrifty.export.check import TOKENIZER, sha256
from thrifty.export.engines import WEIGHTS
from thrifty.export.folder import replacing
from thrifty.models import build, exchange
from thrifty.models.exchange.folder import CONFIG, read_config
from thrifty.models.hf import library
from thrifty.models.logits import Logits
from thrifty.models.wav2vec2 import Wav2Vec2
from thrifty.spec.transcripts import BETWEEN_WORDS, BLANKS, are_words

TOLERANCE = 1e-4  # both compute in fp32; their operators add in another order
_ROWS, _SEED = 3, 0
_MARKS = {"pad_token": BLANKS[0], "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def export_hugging_face(bundle: Bundle, folder: str | Path) -> dict[str, Any]:
    """Write a directory that ``from_pretrained`` reads: the model, and its tokenizer or what is done to pixels.

    It is read back, by transformers where that is installed, else by thrifty, and has to give the bundle's answers.

    Returns:
        A report: file, its sha256 and bytes, who read it, tolerance, and the largest absolute difference of logits.

    Raises:
        JobError: the model's family has no form there, or the folder holds something else.
        BundleError: what was written answers otherwise; nothing is left behind.
        StorageError: the folder cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.exists() and not (folder.is_dir() and ((folder / CONFIG).exists() or not any(folder.iterdir()))):
        raise JobError(f"'{folder}' holds something else than a model", mend="Choose another folder.")
    if not bundle.info.model.as_named:
        raise JobError(
            f"'{bundle.info.name}' has layers of sizes of their own, which no config of transformers can say",
            mend="Export the bundle that it was compressed from, or to another form.",
        )
    with replacing(folder, "a model") as fresh:
        _write_model(bundle, fresh)
        _write_input(bundle, fresh)
        reader, model = _read(fresh)
        x = _example(bundle)
        with torch.inference_mode():
            worst = float((_logits(model, x) - _logits(torch_model(bundle, plain=True), x)).abs().max())
        if not worst <= TOLERANCE:  # NaN must fail too
            raise BundleError(
                f"'{bundle.info.name}' answers otherwise in {reader}: difference {worst:.3g}, over {TOLERANCE:g}"
            )
        return {
            "file": WEIGHTS,
            "sha256": sha256(fresh / WEIGHTS),
            "bytes": (fresh / WEIGHTS).stat().st_size,
            "read_by": reader,
            "tolerance": TOLERANCE,
            "max_difference": worst,
        }


def _write_model(bundle: Bundle, folder: Path) -> None:
    plan, model, end = bundle.info.model, torch_model(bundle, plain=True), bundle.info.data.end
    if isinstance(model, Logits):
        with library():
            cast(Any, model.model).save_pretrained(folder)
        return
    more: dict[str, dict[str, Any]] = {
        "language": {"bos_token_id": end, "eos_token_id": end},
        "tag": {"problem_type": "multi_label_classification"},
    }
    exchange.save(model, plan, folder, bundle.info.data.labels, **more.get(bundle.info.task, {}))


def _write_input(bundle: Bundle, folder: Path) -> None:
    """Write how raw input becomes tensors: the tokenizer of texts, size and statistics of images, rate of waves."""
    from tokenizers import Tokenizer

    from thrifty.data.texts.word_pieces import CLASS, END, PAD, UNKNOWN

    data = bundle.info.data
    if data.kind == "audio":
        _write_waves(bundle, folder)
        return
    if data.kind == "image":
        channels, height, width = data.shape
        values: dict[str, Any] = {
            "image_processor_type": "ViTImageProcessor",
            "size": {"height": height, "width": width},
            "do_resize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "do_convert_rgb": channels == 3,
            "image_mean": list(data.mean),
            "image_std": list(data.std),
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
        return
    shutil.copyfile(bundle.folder / TOKENIZER, folder / TOKENIZER)
    marks = {"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": CLASS, "sep_token": END}
    if bundle.info.task == "language":
        end = str(Tokenizer.from_file(str(bundle.folder / TOKENIZER)).id_to_token(data.end))
        marks = {"bos_token": end, "eos_token": end}
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": data.shape[0], **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")


def _write_waves(bundle: Bundle, folder: Path) -> None:
    """Write how waves are scaled, and of transcripts in characters what tokens stand for."""
    data = bundle.info.data
    assert data.sound is not None
    values: dict[str, Any] = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": data.sound.rate,
        "padding_value": 0.0,
        "padding_side": "right",
        "do_normalize": True,
        # theirs normalises padding too, where it is over time
        "return_attention_mask": bundle.info.model.arguments["norm"] == "layer",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")
    if bundle.info.task != "transcribe" or are_words(data.labels):
        return  # their tokenizer puts no space between words that are tokens
    tokens = [BLANKS[0], *(BETWEEN_WORDS if symbol == " " else symbol for symbol in data.labels)]
    numbers = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False, indent=1), encoding="utf-8")
    marks = {mark: token if token in numbers else None for mark, token in _MARKS.items()}
    values = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "word_delimiter_token": BETWEEN_WORDS, **marks}
    (folder / "tokenizer_config.json").write_text(json.dumps(values, indent=2), encoding="utf-8")


def _read(folder: Path) -> tuple[str, nn.Module]:
    """Read the directory as its users will."""
    if importlib.util.find_spec("transformers") is None:
        plan = exchange.read_plan(folder)
        model = build(plan)
        exchange.load_weights(model, plan, folder)
        return "thrifty", model.eval()
    with library() as transformers:
        (architecture,) = read_config(folder)["architectures"]
        found = getattr(transformers, architecture).from_pretrained(folder, local_files_only=True)
        return f"transformers {transformers.__version__}", found.eval()


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    """Answer input of ours; of theirs a wave is one row."""
    if isinstance(model, Wav2Vec2):
        out = model(x)
        # at its end a wave has one frame more, in which it has ended
        return cast(Tensor, out[:, :-1] if out.dim() == 3 else out)
    out = model(x.flatten(1) if x.dim() == 3 else x)
    return out if isinstance(out, Tensor) else cast(Tensor, out.logits)


def _example(bundle: Bundle) -> Tensor:
    """Random input of the model's kind; texts and waves without padding."""
    generator = torch.Generator().manual_seed(_SEED)
    data = bundle.info.data
    if data.kind in {"audio", "image"}:
        return torch.randn(_ROWS, *data.shape, generator=generator)
    return torch.randint(1, data.vocabulary, (_ROWS, data.shape[0]), generator=generator)
