"""A language model trained as nanoGPT's train.py does it on a CPU: fp32, random windows, AdamW, warm-up and cosine.

Its documented setting for a CPU is ``config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20
--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000
--dropout=0.0``, with a published validation loss of 1.88. Evaluation here goes through the whole held-out text.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.peers.held_out import nats_per_byte
from benchmarks.peers.networks import GPT
from benchmarks.peers.talk import Talk
from benchmarks.peers.task import Task, cosine, facts, stream, task_of, windows

BETAS = (0.9, 0.99)


def main(task: Task, talk: Talk) -> None:
    """Train, and say how it goes."""
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    data = stream(task)
    model = GPT(data.vocabulary, task.length, task.model["layers"], task.model["width"], task.model["heads"])
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": task.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    # fused on GPUs alone, as there
    optimizer = torch.optim.AdamW(groups, lr=task.rate, betas=BETAS)
    talk.say("ready", **facts(task, vocabulary=data.vocabulary))
    for step in range(task.last_step):
        for group in optimizer.param_groups:
            group["lr"] = task.rate * cosine(step, task)
        starts = torch.randint(len(data.train) - task.length, (task.batch,))
        x, y = (torch.from_numpy(part) for part in windows(data.train, starts.numpy(), task.length))
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        if task.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), task.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        lost = loss.item()  # logged in every step, as the setting has it
        talk.step(task.batch, task.batch * task.length)
        if task.evaluate_every and (step + 1) % task.evaluate_every == 0:
            model.eval()
            figure = nats_per_byte(model, data, task.length)
            model.train()
            talk.say("evaluated", step=step + 1, nats_per_byte=figure, loss=lost)
            if task.reached(figure) or not np.isfinite(figure):
                break
    talk.done()


if __name__ == "__main__":
    main(task_of(sys.argv), Talk())
