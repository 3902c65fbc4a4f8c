"""ResNet-18 by Lightning as its documentation has it for speed: mixed precision in bf16, and channels last."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers.augmented import augmented
from benchmarks.peers.networks import resnet18
from benchmarks.peers.plain_torch import MOMENTUM
from benchmarks.peers.talk import Talk
from benchmarks.peers.task import Task, cosine, facts, images, task_of


def main(task: Task, talk: Talk) -> None:
    """Train, and say how it goes."""
    import lightning

    class Classifier(lightning.LightningModule):
        """Cross entropy of a network, SGD with momentum, and accuracy after each epoch."""

        def __init__(self, classes: int) -> None:
            super().__init__()
            self.network = resnet18(classes).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.right = self.count = 0

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            x, y = batch
            x = augmented(x, task)
            return F.cross_entropy(self.network(x.to(memory_format=torch.channels_last)), y)

        def on_train_start(self) -> None:
            talk.say("ready", **facts(task))

        def on_train_batch_end(self, outputs: Any, batch: list[Tensor], index: int) -> None:
            talk.step(len(batch[0]))

        def on_validation_epoch_start(self) -> None:
            self.right = self.count = 0

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            x, y = batch
            answers = self.network(x.to(memory_format=torch.channels_last)).argmax(1)
            self.right += int((answers == y).sum())
            self.count += len(y)

        def on_validation_epoch_end(self) -> None:
            figure = self.right / self.count
            talk.say("evaluated", step=self.trainer.global_step, accuracy=figure)
            self.trainer.should_stop = task.reached(figure)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), task.rate, MOMENTUM, weight_decay=task.weight_decay)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, task))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    torch.set_num_threads(task.threads)
    lightning.seed_everything(task.seed, verbose=False)
    data = images(task.data)
    train = TensorDataset(torch.from_numpy(data.train_x), torch.from_numpy(data.train_y))
    held_out = TensorDataset(torch.from_numpy(data.held_out_x), torch.from_numpy(data.held_out_y))
    trainer = lightning.Trainer(
        accelerator="cpu",
        precision="bf16-mixed" if task.precision == "bf16" else "32-true",
        max_steps=task.last_step,
        limit_val_batches=1.0 if task.evaluate_every else 0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Classifier(data.classes),
        DataLoader(train, task.batch, shuffle=True),
        DataLoader(held_out, 256) if task.evaluate_every else None,
    )
    talk.done()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(task_of(sys.argv), Talk())
