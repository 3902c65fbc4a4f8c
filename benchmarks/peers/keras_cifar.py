"""ResNet-18 by Keras 3 on its PyTorch backend, with ``compile`` and ``fit`` and otherwise as it comes."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np

from benchmarks.peers.plain_torch import MOMENTUM
from benchmarks.peers.talk import Talk
from benchmarks.peers.task import Images, Task, facts, images, task_of


class EnoughError(Exception):
    """As many steps as wanted were taken; Keras itself ends at the end of an epoch."""


def network(classes: int) -> Any:
    """The network of `networks.resnet18`; Keras reads images with their channels last."""
    from keras import Input, Model, layers

    def convolution(x: Any, width: int, size: int, stride: int) -> Any:
        made = layers.Conv2D(width, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal")
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(made(x))

    def block(x: Any, inputs: int, width: int, stride: int) -> Any:
        y = layers.Activation("relu")(convolution(x, width, 3, stride))
        y = convolution(y, width, 3, 1)
        shortcut = convolution(x, width, 1, stride) if stride > 1 or inputs != width else x
        return layers.Activation("relu")(layers.Add()([y, shortcut]))

    images_in = Input((32, 32, 3))
    x = layers.Activation("relu")(convolution(images_in, 64, 3, 1))
    inputs = 64
    for number, width in enumerate((64, 128, 256, 512)):
        x = block(x, inputs, width, 2 if number else 1)
        x = block(x, width, width, 1)
        inputs = width
    return Model(images_in, layers.Dense(classes)(layers.GlobalAveragePooling2D()(x)))


def fit(task: Task, talk: Talk, data: Images) -> None:
    """Compile and fit."""
    import keras

    class Tell(keras.callbacks.Callback):
        """Says how it goes."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = 0

        def on_train_begin(self, logs: Any = None) -> None:
            talk.say("ready", **facts(task))

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.steps += 1
            talk.step(task.batch)
            if self.steps >= task.last_step and not task.evaluate_every:
                raise EnoughError

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            figure = float((logs or {}).get("val_accuracy", 0.0))
            if task.evaluate_every:
                talk.say("evaluated", step=self.steps, accuracy=figure)
                self.model.stop_training = task.reached(figure) or self.steps >= task.last_step

    model = network(data.classes)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(task.steps - task.warmup, 1), warmup_target=task.rate, warmup_steps=task.warmup
    )
    model.compile(
        optimizer=keras.optimizers.SGD(schedule, momentum=MOMENTUM, weight_decay=task.weight_decay or None),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x, held_x = (np.ascontiguousarray(part.transpose(0, 2, 3, 1)) for part in (data.train_x, data.held_out_x))
    model.fit(
        x,
        data.train_y,
        batch_size=task.batch,
        epochs=-(-task.last_step // -(-len(x) // task.batch)),
        validation_data=(held_x, data.held_out_y) if task.evaluate_every else None,
        validation_batch_size=256,
        callbacks=[Tell()],
        verbose=0,
    )


def main(task: Task, talk: Talk) -> None:
    """Train, and say how it goes."""
    import keras
    import torch

    torch.set_num_threads(task.threads)
    keras.utils.set_random_seed(task.seed)
    with contextlib.suppress(EnoughError):
        fit(task, talk, images(task.data))
    talk.done()


if __name__ == "__main__":
    main(task_of(sys.argv), Talk())
