"""Steps of a large model on a GPU by Hugging Face's Trainer or by Lightning, on batches that are made up.

Flags: ``trainer`` or ``lightning``. The models are Hugging Face's, as they come. A step may be summed up from parts of
``model["micro"]`` samples, as somebody does whose GPU does not hold all at once.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from benchmarks.peers.plain_torch import bert_sizes
from benchmarks.peers.talk import Talk
from benchmarks.peers.task import Task, facts, task_of

CLASSES = 10
GPT_VOCABULARY, BERT_VOCABULARY = 50_257, 30_522
SAMPLES = 512


class Made(Dataset[dict[str, Any]]):
    """Samples of noise, each with a label; the same number again and again lies in memory, as a cache would have it."""

    def __init__(self, task: Task, count: int) -> None:
        self.count, self.task = count, task
        torch.manual_seed(0)
        if task.kind == "image":
            self.x = torch.randn(SAMPLES, 3, task.length, task.length)
        else:
            vocabulary = GPT_VOCABULARY if task.kind == "language" else BERT_VOCABULARY
            self.x = torch.randint(5, vocabulary, (SAMPLES, task.length))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: int) -> dict[str, Any]:
        x = self.x[at % SAMPLES]
        if self.task.kind == "image":
            return {"pixel_values": x, "labels": at % CLASSES}
        if self.task.kind == "language":
            return {"input_ids": x, "labels": x}
        return {"input_ids": x, "attention_mask": torch.ones_like(x), "labels": at % CLASSES}


def build(task: Task) -> nn.Module:
    """Hugging Face's model of a task."""
    labels: dict[str, Any] = {"num_labels": CLASSES}
    if task.kind == "image":
        made: nn.Module = ResNetForImageClassification(ResNetConfig(**labels))  # its default is ResNet-50
        return made
    if task.kind == "language":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=GPT_VOCABULARY,
                n_positions=task.length,
                n_embd=task.model["width"],
                n_layer=task.model["layers"],
                n_head=task.model["heads"],
            )
        )
    return BertForSequenceClassification(BertConfig(**bert_sizes(task, BERT_VOCABULARY) | labels))


def by_trainer(task: Task, talk: Talk) -> None:
    """Train by Trainer."""
    micro = task.model["micro"]

    class Tell(TrainerCallback):
        """Says how it goes."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            talk.say("ready", **facts(task, optimizer=str(args.optim)))

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            torch.cuda.synchronize()
            talk.step(task.batch, task.batch * task.length)

    with tempfile.TemporaryDirectory(prefix="trainer-") as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=task.batch // micro,
            max_steps=task.last_step,
            learning_rate=task.rate,
            bf16=task.precision == "bf16",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        made = Made(task, task.batch * task.last_step)
        Trainer(build(task), arguments, train_dataset=made, callbacks=[Tell()]).train()


def by_lightning(task: Task, talk: Talk) -> None:
    """Train by Lightning."""
    import lightning

    micro = task.model["micro"]

    class Whole(lightning.LightningModule):
        """A model that knows its own loss, and AdamW."""

        def __init__(self) -> None:
            super().__init__()
            self.network = build(task)

        def training_step(self, batch: dict[str, Any], index: int) -> Any:
            return self.network(**batch).loss

        def on_train_start(self) -> None:
            talk.say("ready", **facts(task))

        def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
            if (index + 1) % (task.batch // micro) == 0:
                torch.cuda.synchronize()
                talk.step(task.batch, task.batch * task.length)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), task.rate)

    trainer = lightning.Trainer(
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed" if task.precision == "bf16" else "32-true",
        max_steps=task.last_step,
        accumulate_grad_batches=task.batch // micro,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Whole(), DataLoader(Made(task, task.batch * task.last_step), micro))


def main(task: Task, talk: Talk) -> None:
    """Take the steps, and say how it goes."""
    set_seed(task.seed)
    (by_lightning if "lightning" in task.flags else by_trainer)(task, talk)
    talk.done(device_peak_bytes=torch.cuda.max_memory_allocated())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(task_of(sys.argv), Talk())
