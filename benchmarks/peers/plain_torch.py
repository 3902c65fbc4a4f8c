"""The loop that most people write first: whole batches in fp32, PyTorch's own layers, one step after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.augmented import augmented
from benchmarks.peers.held_out import accuracy
from benchmarks.peers.networks import GPT, resnet18
from benchmarks.peers.talk import Talk
from benchmarks.peers.task import Task, cosine, facts, images, stream, task_of, texts, windows

MOMENTUM = 0.9
# images in memory under the flag ``few``, which is for the memory of a step alone
FEW = 2_048


@dataclass(frozen=True)
class Work:
    """What there is to do: a model, its optimizer, batches without end, and how a batch becomes logits and answers."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Iterator[dict[str, Tensor]]
    logits: Callable[[dict[str, Tensor]], Tensor]
    evaluate: Callable[[], float] | None = None


def shuffled(count: int, batch: int) -> Iterator[Tensor]:
    """Places of the samples of each step, every sample once an epoch, without end."""
    while True:
        yield from torch.randperm(count).split(batch)


def image_work(task: Task) -> Work:
    """ResNet-18 by SGD with momentum."""
    data = images(task.data, FEW if "few" in task.flags else None)
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    held_x, held_y = torch.from_numpy(data.held_out_x), torch.from_numpy(data.held_out_y)
    model = resnet18(data.classes)
    optimizer = torch.optim.SGD(model.parameters(), task.rate, MOMENTUM, weight_decay=task.weight_decay)
    batches = ({"x": augmented(x[chosen], task), "y": y[chosen]} for chosen in shuffled(len(x), task.batch))
    return Work(model, optimizer, batches, lambda batch: model(batch["x"]), lambda: accuracy(model, held_x, held_y))


def text_work(task: Task) -> Work:
    """Hugging Face's BERT on random batches, padded to their longest text, by AdamW."""
    from transformers import BertConfig, BertForSequenceClassification

    ids, labels = texts(task)["train"]
    model = BertForSequenceClassification(BertConfig(**bert_sizes(task) | {"num_labels": max(labels) + 1}))
    optimizer = torch.optim.AdamW(model.parameters(), task.rate, weight_decay=task.weight_decay)

    def batches() -> Iterator[dict[str, Tensor]]:
        for chosen in shuffled(len(ids), task.batch):
            picked = [torch.tensor(ids[at]) for at in chosen.tolist()]
            x = nn.utils.rnn.pad_sequence(picked, batch_first=True)
            yield {"x": x, "seen": (x != 0).long(), "y": torch.tensor([labels[at] for at in chosen.tolist()])}

    return Work(
        model, optimizer, batches(), lambda batch: model(input_ids=batch["x"], attention_mask=batch["seen"]).logits
    )


def bert_sizes(task: Task, vocabulary: int = 30_522) -> dict[str, Any]:
    """The sizes of a BERT as Hugging Face names them; what is not named here stays at its default."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": task.model["width"],
        "num_hidden_layers": task.model["layers"],
        "num_attention_heads": task.model["heads"],
        "intermediate_size": 4 * task.model["width"],
    }


def language_work(task: Task) -> Work:
    """GPT-2 on random windows, by AdamW."""
    data = stream(task)
    model = GPT(data.vocabulary, task.length, task.model["layers"], task.model["width"], task.model["heads"])
    optimizer = torch.optim.AdamW(model.parameters(), task.rate, weight_decay=task.weight_decay)

    places = np.random.default_rng(task.seed)

    def batches() -> Iterator[dict[str, Tensor]]:
        while True:
            starts = places.integers(len(data.train) - task.length, size=task.batch)
            x, y = windows(data.train, starts, task.length)
            yield {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}

    return Work(model, optimizer, batches(), lambda batch: model(batch["x"]))


WORKS: dict[str, Callable[[Task], Work]] = {
    "image": image_work,
    "text": text_work,
    "language": language_work,
    "characters": language_work,
}


def main(task: Task, talk: Talk) -> None:
    """Train, and say how it goes."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    work = WORKS[task.kind](task)
    model, optimizer = work.model.train(), work.optimizer
    talk.say("ready", **facts(task))
    for step in range(task.last_step):
        batch = next(work.batches)
        for group in optimizer.param_groups:
            group["lr"] = task.rate * cosine(step, task)
        with torch.autocast("cpu", torch.bfloat16, enabled=task.precision == "bf16"):
            logits = work.logits(batch)
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), batch["y"].flatten())
        loss.backward()
        if task.clip:
            nn.utils.clip_grad_norm_(model.parameters(), task.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        talk.step(len(batch["x"]), batch["x"].numel() if batch["x"].dim() == 2 else 0)
        if work.evaluate and task.evaluate_every and (step + 1) % task.evaluate_every == 0:
            model.eval()
            figure = work.evaluate()
            model.train()
            talk.say("evaluated", step=step + 1, accuracy=figure)
            if task.reached(figure):
                break
    talk.done()


if __name__ == "__main__":
    main(task_of(sys.argv), Talk())
