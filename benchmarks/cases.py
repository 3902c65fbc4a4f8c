"""The cases that predictions of this machine are held against: models of many families, each with a way to train it.

As a script, in a process of its own, it trains one case for some steps and prints what they took:
``python -m benchmarks.cases CASE STEPS``.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from thrifty.cost import Trace

Shapes = dict[str, tuple[tuple[int, ...], str]]
CLASSES = 10
LEAST_STEPS, ENOUGH_SECONDS = 7, 6.0


@dataclass(frozen=True)
class Model:
    """What is trained: built by ``build``, on batches of ``shapes(samples)``, by ``loss``.

    Whole numbers of a batch lie below ``below``: classes or tokens. ``init`` fills the weights, as the loop has it.
    """

    build: Callable[[], nn.Module]
    shapes: Callable[[int], Shapes]
    loss: Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, Any]]
    below: int = CLASSES
    init: str = "own"


@dataclass(frozen=True)
class Case:
    """A model and how it is trained; ``samples`` at once, one micro-batch a step."""

    model: str
    samples: int
    precision: str = "fp32"
    optimizer: str = "adamw"
    layout: str = "contiguous"
    checkpointing: Literal["none", "selective", "full"] = "none"

    @property
    def name(self) -> str:
        parts = [self.model, str(self.samples), self.precision, self.optimizer]
        parts += ["nhwc"] if self.layout == "channels_last" else []
        parts += [self.checkpointing] if self.checkpointing != "none" else []
        return "-".join(parts)


def _cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
    from thrifty.models.losses import cross_entropy

    return cross_entropy(model, batch)


def _its_own(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Any]:
    return model(**batch).loss, 1


def _ours(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torch

        from thrifty.models import MODELS
        from thrifty.models import build as build_model
        from thrifty.spec import ModelPlan

        recipe = MODELS[name]
        plan = ModelPlan(name=name, family=recipe.family, arguments={**recipe.arguments, **arguments})
        return build_model(plan, "meta" if torch.get_default_device().type == "meta" else "cpu")

    return build


def _gpt(name: str, length: int, vocabulary: int = 4096) -> Model:
    return Model(
        _ours(name, vocabulary=vocabulary, length=length),
        lambda samples: {"x": ((samples, length), "int64"), "y": ((samples, length), "int64")},
        _cross_entropy,
        vocabulary,
        "default",
    )


def _image(build: Callable[[], nn.Module], *shape: int, init: str = "default") -> Model:
    return Model(
        build,
        lambda samples: {"x": ((samples, *shape), "float32"), "y": ((samples,), "int64")},
        _cross_entropy,
        init=init,
    )


def _hf(model: str, config: str, shapes: Callable[[int], Shapes], below: int = CLASSES, **sizes: Any) -> Model:
    def build() -> nn.Module:
        import transformers

        made: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**sizes))
        return made

    return Model(build, shapes, _its_own, below)


def _text(length: int) -> Callable[[int], Shapes]:
    return lambda samples: {"input_ids": ((samples, length), "int64"), "labels": ((samples,), "int64")}


def _tokens(length: int) -> Callable[[int], Shapes]:
    return lambda samples: {"input_ids": ((samples, length), "int64"), "labels": ((samples, length), "int64")}


def _bert(**sizes: Any) -> Model:
    return _hf("BertForSequenceClassification", "BertConfig", _text(128), num_labels=CLASSES, **sizes)


def _lstm() -> nn.Module:
    from torch import nn

    class Tagger(nn.Module):
        """A two-layer LSTM over embedded tokens; the answer is read off its last state."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(CLASSES, 256)
            self.lstm = nn.LSTM(256, 512, num_layers=2, batch_first=True)
            self.head = nn.Linear(512, CLASSES)

        def forward(self, tokens_BT: Tensor) -> Tensor:
            out: Tensor = self.head(self.lstm(self.embedding(tokens_BT))[0][:, -1])
            return out

    return Tagger()


def _users_own() -> nn.Module:
    import torch
    from torch import nn

    class Gated(nn.Module):
        """Something no table knows: convolutions, a gate, attention over pixels, group norm, a residual."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 64, 5, stride=2, padding=2)
            self.gate = nn.Conv2d(64, 64, 3, padding=1, groups=64)
            self.norm = nn.GroupNorm(8, 64)
            self.attend = nn.MultiheadAttention(64, 4, batch_first=True, dropout=0.1)
            self.mix = nn.ModuleList(nn.Sequential(nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 64)) for _ in range(4))
            self.head = nn.Linear(64, CLASSES)

        def forward(self, x_BCHW: Tensor) -> Tensor:
            x_BCHW = self.stem(x_BCHW)
            x_BCHW = self.norm(x_BCHW * torch.sigmoid(self.gate(x_BCHW)))
            x_BTC = torch.nn.functional.avg_pool2d(x_BCHW, 2).flatten(2).transpose(1, 2)
            x_BTC = x_BTC + self.attend(x_BTC, x_BTC, x_BTC, need_weights=False)[0]
            for mix in self.mix:
                x_BTC = x_BTC + torch.tanh(mix(x_BTC))
            out: Tensor = self.head(x_BTC.mean(1))
            return out

    return Gated()


MODELS: dict[str, Model] = {
    "bert-base": _bert(),
    "bert-mini": _bert(num_hidden_layers=6, hidden_size=384, num_attention_heads=6, intermediate_size=1536),
    "gpt-nano": _gpt("gpt-nano", 64),
    "gpt-mini": _gpt("gpt-mini", 256),
    "gpt-small": _gpt("gpt-small", 512),
    "gpt2": _gpt("gpt2", 512, 50257),
    "resnet20": _image(_ours("resnet20", channels=3, classes=CLASSES), 3, 32, 32),
    "resnet18": _image(_ours("resnet18", channels=3, classes=CLASSES), 3, 96, 96),
    "resnet50": _image(_ours("resnet50", channels=3, classes=CLASSES), 3, 128, 128),
    "mlp": _image(_ours("mlp-large", inputs=784, classes=CLASSES), 1, 28, 28),
    "vit": _hf(
        "ViTForImageClassification",
        "ViTConfig",
        lambda samples: {"pixel_values": ((samples, 3, 224, 224), "float32"), "labels": ((samples,), "int64")},
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        intermediate_size=1536,
        num_labels=CLASSES,
    ),
    "llama": _hf(
        "LlamaForCausalLM",
        "LlamaConfig",
        _tokens(512),
        below=8192,
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=2,
    ),
    "whisper": _hf(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        lambda samples: {"input_features": ((samples, 80, 1000), "float32"), "labels": ((samples, 64), "int64")},
        below=4096,
        vocab_size=4096,
        d_model=256,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_source_positions=500,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
    "lstm": Model(_lstm, lambda samples: {"x": ((samples, 100), "int64"), "y": ((samples,), "int64")}, _cross_entropy),
    "users-own": _image(_users_own, 3, 64, 64, init="own"),
}

CASES: tuple[Case, ...] = (
    Case("bert-base", 8, "bf16"),
    Case("bert-base", 4, "fp32"),
    Case("bert-base", 8, "bf16", checkpointing="full"),
    Case("bert-mini", 32, "fp32"),
    Case("bert-mini", 32, "bf16"),
    Case("bert-mini", 32, "bf16", checkpointing="selective"),
    Case("bert-mini", 64, "bf16", "sgd"),
    Case("gpt-nano", 16, "fp32"),
    Case("gpt-mini", 8, "fp32", "sgd"),
    Case("gpt-mini", 8, "bf16"),
    Case("gpt-mini", 32, "bf16", checkpointing="full"),
    Case("gpt-small", 8, "bf16"),
    Case("gpt-small", 4, "fp32", "momentum"),
    Case("gpt2", 2, "bf16"),
    Case("gpt2", 2, "bf16", checkpointing="selective"),
    Case("resnet20", 256, "fp32", "momentum"),
    Case("resnet20", 256, "bf16", "momentum", "channels_last"),
    Case("resnet18", 64, "fp32", "momentum", "channels_last"),
    Case("resnet18", 64, "bf16", "momentum"),
    Case("resnet18", 128, "bf16", "adamw", "channels_last"),
    Case("resnet50", 16, "bf16", "momentum", "channels_last"),
    Case("resnet50", 16, "fp32", "momentum", "channels_last", "full"),
    Case("mlp", 256, "fp32", "sgd"),
    Case("mlp", 4096, "bf16", "adamw"),
    Case("vit", 16, "fp32"),
    Case("vit", 32, "bf16"),
    Case("vit", 32, "bf16", checkpointing="full"),
    Case("llama", 4, "fp32"),
    Case("llama", 8, "bf16"),
    Case("llama", 8, "bf16", "sgd", checkpointing="full"),
    Case("whisper", 8, "fp32"),
    Case("whisper", 16, "bf16"),
    Case("lstm", 32, "fp32"),
    Case("lstm", 64, "fp32", "momentum"),
    Case("users-own", 32, "fp32"),
    Case("users-own", 64, "bf16", "momentum", "channels_last"),
)
# as many at once as keep a large GPU busy, and a few that cannot
GPU_CASES: tuple[Case, ...] = (
    Case("bert-base", 64, "bf16"),
    Case("bert-base", 32, "fp32"),
    Case("bert-base", 128, "bf16", checkpointing="full"),
    Case("bert-base", 128, "bf16", checkpointing="selective"),
    Case("bert-mini", 128, "fp32"),
    Case("bert-mini", 256, "bf16"),
    Case("bert-mini", 512, "bf16", "sgd"),
    Case("gpt-nano", 16, "fp32"),
    Case("gpt-nano", 512, "bf16"),
    Case("gpt-mini", 64, "fp32", "sgd"),
    Case("gpt-mini", 64, "bf16"),
    Case("gpt-mini", 256, "bf16", checkpointing="full"),
    Case("gpt-small", 64, "bf16"),
    Case("gpt-small", 32, "fp32", "momentum"),
    Case("gpt2", 8, "fp32"),
    Case("gpt2", 16, "bf16"),
    Case("gpt2", 32, "bf16", checkpointing="selective"),
    Case("gpt2", 32, "bf16", checkpointing="full"),
    Case("resnet20", 1024, "fp32", "momentum"),
    Case("resnet20", 2048, "bf16", "momentum", "channels_last"),
    Case("resnet18", 512, "fp32", "momentum", "channels_last"),
    Case("resnet18", 512, "bf16", "momentum"),
    Case("resnet18", 1024, "bf16", "adamw", "channels_last"),
    Case("resnet50", 256, "bf16", "momentum", "channels_last"),
    Case("resnet50", 128, "bf16", "momentum"),
    Case("resnet50", 128, "fp32", "momentum", "channels_last", "full"),
    Case("mlp", 4096, "fp32", "sgd"),
    Case("mlp", 65536, "bf16", "adamw"),
    Case("vit", 128, "fp32"),
    Case("vit", 256, "bf16"),
    Case("vit", 256, "bf16", checkpointing="full"),
    Case("llama", 32, "fp32"),
    Case("llama", 64, "bf16"),
    Case("llama", 64, "bf16", "sgd", checkpointing="full"),
    Case("whisper", 64, "fp32"),
    Case("whisper", 128, "bf16"),
    Case("lstm", 256, "fp32"),
    Case("lstm", 512, "fp32", "momentum"),
    Case("users-own", 256, "fp32"),
    Case("users-own", 1024, "bf16", "momentum", "channels_last"),
)
QUICK = tuple(case for case in CASES if case.model in {"gpt-nano", "mlp", "resnet20", "lstm", "users-own"})


def build(case: Case) -> nn.Module:
    """Build the model of a case, its blocks made to compute again what the case says."""
    from thrifty.models.recompute import recomputing

    return recomputing(MODELS[case.model].build(), case.checkpointing)


def trace(case: Case, device: Literal["cpu", "cuda"] = "cpu") -> Trace:
    """Trace a step of a case on a device."""
    from thrifty import optim
    from thrifty.cost import trace_step

    model = MODELS[case.model]
    return trace_step(
        lambda: build(case),
        model.loss,
        model.shapes(case.samples),
        precision=case.precision,  # type: ignore[arg-type]
        optimizer=optim.by_name(case.optimizer),
        memory_format=case.layout,  # type: ignore[arg-type]
        device=device,
    )


def arrays(case: Case) -> Iterator[dict[str, Any]]:
    """Batches of numpy arrays without end, as a loader would give them: noise, and whole numbers within bounds."""
    import numpy as np

    model, generator = MODELS[case.model], np.random.default_rng(0)
    while True:
        yield {
            key: generator.random(shape, dtype=np.float32)
            if dtype == "float32"
            else generator.integers(3, model.below, shape)
            for key, (shape, dtype) in model.shapes(case.samples).items()
        }


def status_bytes(field: str) -> int:
    """Read VmRSS or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def imported_bytes(case: Case) -> int:
    """Resident once all is imported that building and training a case imports, and before it has any weights."""
    import torch

    import thrifty.optim  # noqa: F401

    # weights of no device take no memory; the first optimizer imports torch's compiler
    with torch.device("meta"):
        model = MODELS[case.model].build()
    torch.optim.AdamW(model.parameters(), fused=False)
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return status_bytes("VmRSS")


def named(text: str) -> Case:
    """Find a case by its name, or make one of its fields in JSON."""
    if text.startswith("{"):
        return Case(**json.loads(text))
    return next(each for each in (*CASES, *GPU_CASES) if each.name == text)


def take_steps(case: Case, steps: int, accumulation: int = 1, device: Literal["cpu", "cuda"] = "cpu") -> list[float]:
    """Train a case as the loop does, from so many micro-batches a step; returns the seconds of each step.

    Slow cases take fewer steps, at least `LEAST_STEPS`. A GPU is given the same batch each time.
    """
    import torch

    from thrifty import optim
    from thrifty.hardware.pages import keep_pages, keeping
    from thrifty.models.init import initialise
    from thrifty.models.inputs import to_device, to_tensors

    keep_pages(keeping(device, case.checkpointing))
    model = build(case)
    initialise(model, MODELS[case.model].init, seed=0)
    model = to_device(model, device, case.layout).train()
    optimizer = optim.by_name(case.optimizer)(model)
    loss, batches = MODELS[case.model].loss, arrays(case)
    if device != "cpu":
        batches = itertools.repeat(next(batches))
    seconds: list[float] = []
    while len(seconds) < steps and (len(seconds) < LEAST_STEPS or sum(seconds) < ENOUGH_SECONDS):
        arrived = [next(batches) for _ in range(accumulation)]
        began = time.perf_counter()
        for each in arrived:
            batch = to_tensors(each, device, case.layout)
            with torch.autocast(device, torch.bfloat16, enabled=case.precision == "bf16"):
                total, weight = loss(model, batch)
            (total / weight).backward()
            del total
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        norm.item()  # the loop reads it, and waits for the GPU
        seconds.append(time.perf_counter() - began)
    return seconds


def main(name: str, steps: str, threads: str = "2", accumulation: str = "1") -> None:
    """Print what some steps of a case took, and the most memory that was resident, before it was built and in all."""
    import torch

    case = named(name)
    torch.set_num_threads(int(threads))
    base_bytes = imported_bytes(case)
    seconds = take_steps(case, int(steps), int(accumulation))
    print(json.dumps({"base_bytes": base_bytes, "peak_bytes": status_bytes("VmHWM"), "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
