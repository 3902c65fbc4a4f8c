"""A bare PyTorch loop over prepared images, of the empty model of `benchmarks.nets`: what no loop can do without.

Each step draws its samples, normalises them, runs the model, its loss and the backward pass, sets the learning rate,
steps the optimizer and reads the loss: what our loop does in a step, and nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.nets import empty
from benchmarks.peers.talk import Talk
from benchmarks.peers.task import Task, cosine, task_of
from thrifty.data.images.image import normalise
from thrifty.data.store import Store


def main(task: Task, talk: Talk) -> None:
    """Take the steps."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    store = Store(Path(task.data))
    dataset = store.dataset
    pixels, labels = store.array("train", "x"), torch.from_numpy(store.array("train", "y").copy())
    model = empty(len(dataset.labels))
    optimizer = torch.optim.AdamW(model.parameters(), task.rate, fused=True)
    per_epoch = -(-len(labels) // task.batch)
    order = torch.randperm(len(labels))
    talk.say("ready", precision="fp32")
    for step in range(task.last_step):
        place = step % per_epoch
        if place == 0:
            order = torch.randperm(len(labels))
        chosen = order[place * task.batch : (place + 1) * task.batch]
        x = torch.from_numpy(normalise(pixels[chosen.numpy()], dataset.mean, dataset.std))
        loss = F.cross_entropy(model(x), labels[chosen])
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = task.rate * cosine(step, task)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        talk.step(len(chosen))
    talk.done()


if __name__ == "__main__":
    main(task_of(sys.argv), Talk())
