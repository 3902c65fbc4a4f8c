"""Hugging Face's Trainer, as it comes or with flags: BERT on labelled sentences, GPT-2 on windows of text.

Flags: ``group_by_length`` batches texts of like length, ``compile`` compiles the model, ``no_dropout`` builds it
without. ``precision`` ``bf16`` sets its ``bf16``.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import warnings
from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from benchmarks.peers.held_out import nats_per_byte
from benchmarks.peers.plain_torch import bert_sizes
from benchmarks.peers.talk import Talk
from benchmarks.peers.task import Stream, Task, facts, stream, task_of, texts

EVALUATION_BATCH = 64


class Sentences(Dataset[dict[str, Any]]):
    """Pieces and label of each sentence."""

    def __init__(self, ids: list[list[int]], labels: list[int]) -> None:
        self.ids, self.labels = ids, labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, at: int) -> dict[str, Any]:
        ids = self.ids[at]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": self.labels[at]}


class Windows(Dataset[dict[str, Any]]):
    """A text cut into windows, one after the other, as Hugging Face's run_clm.py cuts it."""

    def __init__(self, tokens: np.ndarray, length: int) -> None:
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        return len(self.tokens) // self.length

    def __getitem__(self, at: int) -> dict[str, Any]:
        window = torch.from_numpy(self.tokens[at * self.length : (at + 1) * self.length])
        return {"input_ids": window, "labels": window}


class Tell(TrainerCallback):
    """Says how it goes, and ends training when it is told to."""

    def __init__(self, task: Task, talk: Talk, samples: int, held_out: Stream | None) -> None:
        self.task, self.talk, self.samples, self.held_out = task, talk, samples, held_out

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.talk.say("ready", **facts(self.task, optimizer=str(args.optim)))

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        task, step = self.task, state.global_step
        per_epoch = -(-self.samples // task.batch)
        taken = task.batch if step % per_epoch else self.samples - (per_epoch - 1) * task.batch
        self.talk.step(taken, taken * task.length)
        if self.held_out is not None and task.evaluate_every and step % task.evaluate_every == 0:
            model.eval()
            figure = nats_per_byte(lambda x: model(input_ids=x).logits, self.held_out, task.length)
            model.train()
            self._evaluated(step, control, nats_per_byte=figure)
        if step >= task.last_step:
            control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **more: Any) -> None:
        self._evaluated(state.global_step, control, accuracy=metrics["eval_accuracy"])

    def _evaluated(self, step: int, control: Any, **figure: float) -> None:
        self.talk.say("evaluated", step=step, **figure)
        if self.task.reached(next(iter(figure.values()))):
            control.should_training_stop = True


def options(task: Task, folder: str) -> TrainingArguments:
    """What the task fixes, and nothing else, so that the rest is as it comes."""
    given: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": task.batch,
        "per_device_eval_batch_size": EVALUATION_BATCH,
        "max_steps": task.steps,
        "learning_rate": task.rate,
        "warmup_steps": task.warmup,
        "seed": task.seed,
        "use_cpu": task.device == "cpu",
        "bf16": task.precision == "bf16",
        "torch_compile": "compile" in task.flags,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if task.weight_decay:
        given["weight_decay"] = task.weight_decay
    if task.kind == "text" and task.evaluate_every:
        given["eval_strategy"] = "epoch"
    if task.kind != "text":
        given |= {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": task.least_rate}}
    if "group_by_length" in task.flags:
        # called so until transformers 5
        names = {field.name for field in dataclasses.fields(TrainingArguments)}
        given |= (
            {"train_sampling_strategy": "group_by_length"}
            if "train_sampling_strategy" in names
            else {"group_by_length": True}
        )
    return TrainingArguments(**given)


def accuracy(predicted: Any) -> dict[str, float]:
    """The share of sentences that are classed right."""
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def sentences(task: Task, talk: Talk, folder: str) -> Trainer:
    """Set up a trainer of BERT that tells sentences apart."""
    from tokenizers import BertWordPieceTokenizer

    pieces = BertWordPieceTokenizer(task.vocabulary, lowercase=True)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    data = {split: Sentences(*rows) for split, rows in texts(task).items()}
    plain: dict[str, Any] = (
        {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if "no_dropout" in task.flags else {}
    )
    model = BertForSequenceClassification(BertConfig(**bert_sizes(task), **plain))
    return Trainer(
        model,
        options(task, folder),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=data["train"],
        eval_dataset=data["dev"],
        compute_metrics=accuracy,
        callbacks=[Tell(task, talk, len(data["train"]), None)],
    )


def windows(task: Task, talk: Talk, folder: str) -> Trainer:
    """Set up a trainer of GPT-2 that goes on with text."""
    data = stream(task)
    plain: dict[str, Any] = (
        {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if "no_dropout" in task.flags else {}
    )
    config = GPT2Config(
        vocab_size=data.vocabulary,
        n_positions=task.length,
        n_embd=task.model["width"],
        n_layer=task.model["layers"],
        n_head=task.model["heads"],
        bos_token_id=0,
        eos_token_id=0,
        **plain,
    )
    train: Dataset[dict[str, Any]] = Windows(data.train, task.length)
    assert isinstance(train, Sized)
    return Trainer(
        GPT2LMHeadModel(config),
        options(task, folder),
        train_dataset=train,
        callbacks=[Tell(task, talk, len(train), data)],
    )


def main(task: Task, talk: Talk) -> None:
    """Train, and say how it goes."""
    torch.set_num_threads(task.threads)
    set_seed(task.seed)
    with tempfile.TemporaryDirectory(prefix="trainer-") as folder:
        trainer = (sentences if task.kind == "text" else windows)(task, talk, folder)
        trainer.train()
    talk.done()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(task_of(sys.argv), Talk())
