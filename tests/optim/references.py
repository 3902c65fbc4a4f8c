"""Each optimizer's update of one tensor, written from its paper in float64, and the models that they step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from thrifty.spec import OptimPlan

State = dict[str, Tensor]
# weight, gradient, state, plan, count of this step from 1
Rule = Callable[[Tensor, Tensor, State, OptimPlan, int], Tensor]


def plan(optimizer: str, **changes: float | int | str | tuple[float, float]) -> OptimPlan:
    values = {
        "optimizer": optimizer,
        "schedule": "fixed",
        "learning_rate": 0.02,
        "momentum": 0.9 if optimizer in {"momentum", "nesterov", "muon"} else 0.0,
        "betas": (0.9, 0.99),
        "eps": 1e-8,
        "weight_decay": 0.1,
        "warmup_steps": 0,
        "total_steps": 100,
        "steps_per_epoch": 10,
        "decay": 0.5,
        "plateau_patience": 2,
        "clip": math.inf,
    }
    return OptimPlan.model_validate({**values, **changes})


class Valley(nn.Module):
    """Rosenbrock's valley for every pair of a matrix and of a vector of parameters; lowest, 0, where all are 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[-1.2, 1.0], [0.5, -0.5], [2.0, 1.5]], dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor([0.3, -0.7, 1.4, 0.9], dtype=torch.float64))

    def forward(self) -> Tensor:
        return valley(self.w) + valley(self.v)


def valley(point: Tensor) -> Tensor:
    x, y = point.reshape(-1, 2).unbind(1)
    return ((1 - x) ** 2 + 5 * (y - x**2) ** 2).sum()


class Net(nn.Module):
    """A small network with each kind of parameter: convolution, norm, bias, embedding, matrix, head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.inner = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 7)

    def forward(self) -> Tensor:
        x_BT = torch.arange(21).view(3, 7) % 7
        hidden = self.conv(self.embedding(x_BT).transpose(1, 2)).transpose(1, 2)
        logits = self.fc(self.inner(self.norm(hidden)).relu())
        return nn.functional.cross_entropy(logits.flatten(0, 1), (x_BT.flatten() * 3 + 1) % 7)


def steps(model: Valley | Net, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        loss = model()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def sgd(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    return w - plan.learning_rate * (g + plan.weight_decay * w)


def momentum(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """v <- mu v + g; w <- w - rate v (Polyak 1964, the rate outside the sum; the first v is g)."""
    state["v"] = plan.momentum * state.get("v", torch.zeros_like(w)) + g + plan.weight_decay * w
    return w - plan.learning_rate * state["v"]


def nesterov(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Bengio et al. 2013, "Advances in optimizing recurrent networks", equation 7, the rate outside the sum."""
    g = g + plan.weight_decay * w
    state["v"] = plan.momentum * state.get("v", torch.zeros_like(w)) + g
    return w - plan.learning_rate * (g + plan.momentum * state["v"])


def rmsprop(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Tieleman and Hinton 2012, slide 29."""
    g, keep = g + plan.weight_decay * w, plan.betas[1]
    state["s"] = keep * state.get("s", torch.zeros_like(w)) + (1 - keep) * g**2
    return w - plan.learning_rate * g / (state["s"].sqrt() + plan.eps)


def adagrad(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Duchi et al. 2011, figure 1, with the diagonal of G."""
    g = g + plan.weight_decay * w
    state["s"] = state.get("s", torch.zeros_like(w)) + g**2
    return w - plan.learning_rate * g / (state["s"].sqrt() + plan.eps)


def adam(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Kingma and Ba 2015, algorithm 1, on the gradient plus an L2 penalty's."""
    return w - plan.learning_rate * _adam_direction(g + plan.weight_decay * w, state, plan, t)


def adamw(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Loshchilov and Hutter 2019, algorithm 2, the decay times the rate."""
    return w - plan.learning_rate * (_adam_direction(g, state, plan, t) + plan.weight_decay * w)


def _adam_direction(g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    (b1, b2), zero = plan.betas, torch.zeros_like(g)
    state["m"] = b1 * state.get("m", zero) + (1 - b1) * g
    state["s"] = b2 * state.get("s", zero) + (1 - b2) * g**2
    return (state["m"] / (1 - b1**t)) / ((state["s"] / (1 - b2**t)).sqrt() + plan.eps)


def nadam(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Dozat 2016, its momentum rising with 0.96^(t / 250), with the decay of AdamW."""
    (b1, b2), zero = plan.betas, torch.zeros_like(g)

    def mu(step: int) -> float:
        return b1 * (1 - 0.5 * 0.96 ** (step / 250))

    state["m"] = b1 * state.get("m", zero) + (1 - b1) * g
    state["s"] = b2 * state.get("s", zero) + (1 - b2) * g**2
    product = math.prod(mu(step) for step in range(1, t + 1))
    mean = mu(t + 1) * state["m"] / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
    root = (state["s"] / (1 - b2**t)).sqrt() + plan.eps
    return w * (1 - plan.learning_rate * plan.weight_decay) - plan.learning_rate * mean / root


def adafactor(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Shazeer and Stern 2018, algorithms 4 and 5, the rate at most 1 / sqrt(t), with AdamW's decay."""
    keep, least = 1 - t**-0.8, torch.finfo(w.dtype).eps
    if w.dim() < 2:
        state["s"] = keep * state.get("s", torch.zeros_like(w)) + (1 - keep) * g**2
        mean = state["s"]
    else:
        state["r"] = keep * state.get("r", torch.zeros(len(w)).to(w)) + (1 - keep) * (g**2).mean(dim=1)
        state["c"] = keep * state.get("c", torch.zeros(w.shape[1]).to(w)) + (1 - keep) * (g**2).mean(dim=0)
        mean = torch.outer(state["r"], state["c"]) / max(float(state["r"].mean()), least)
    update = g / mean.clamp(min=least**2).sqrt()
    update = update / max(1.0, float((update**2).mean().sqrt()))
    step = min(plan.learning_rate, t**-0.5) * max(1e-3, float((w**2).mean().sqrt()))
    return w * (1 - plan.learning_rate * plan.weight_decay) - step * update


def lion(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Chen et al. 2023, algorithm 2."""
    (b1, b2), before = plan.betas, state.get("m", torch.zeros_like(w))
    state["m"] = b2 * before + (1 - b2) * g
    return w - plan.learning_rate * ((b1 * before + (1 - b1) * g).sign() + plan.weight_decay * w)


def lamb(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """You et al. 2020, algorithm 2; norms and biases without the ratio."""
    update = _adam_direction(g, state, plan, t) + plan.weight_decay * w
    ratio = float(w.norm() / update.norm()) if w.dim() >= 2 else 1.0
    return w - plan.learning_rate * ratio * update


def muon(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Jordan et al. 2024 at AdamW's size (Liu et al. 2025, equation 4); AdamW for what is no matrix."""
    if w.dim() < 2:
        return adamw(w, g, state, plan, t)
    mu = plan.momentum
    state["v"] = mu * state.get("v", torch.zeros_like(w)) + (1 - mu) * g
    x = (1 - mu) * g + mu * state["v"]
    x = x.T if len(w) > w.shape[1] else x
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    x = x.T if len(w) > w.shape[1] else x
    size = 0.2 * math.sqrt(max(w.shape))
    return w * (1 - plan.learning_rate * plan.weight_decay) - plan.learning_rate * size * x


def soap(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Vyas et al. 2024, algorithms 3 and 4, the first gradient for the basis alone; AdamW for what is no matrix."""
    if w.dim() < 2:
        return adamw(w, g, state, plan, t)
    (b1, b2), zero, taken = plan.betas, torch.zeros_like(w), t - 1
    shrunk = w * (1 - plan.learning_rate * plan.weight_decay)
    if not taken:
        state |= {"L": (1 - b2) * g @ g.T, "R": (1 - b2) * g.T @ g, "m": zero, "s": zero}
        state |= {"P": torch.linalg.eigh(state["L"])[1], "Q": torch.linalg.eigh(state["R"])[1]}
        return shrunk
    state["m"] = b1 * state["m"] + (1 - b1) * g
    state["s"] = b2 * state["s"] + (1 - b2) * (state["P"].T @ g @ state["Q"]) ** 2
    turned = state["P"].T @ state["m"] @ state["Q"] / (state["s"].sqrt() + plan.eps)
    step = plan.learning_rate * math.sqrt(1 - b2**taken) / (1 - b1**taken)
    updated = shrunk - step * state["P"] @ turned @ state["Q"].T
    state["L"] = b2 * state["L"] + (1 - b2) * g @ g.T
    state["R"] = b2 * state["R"] + (1 - b2) * g.T @ g
    if taken % 10 == 0:
        for dim, (name, basis) in enumerate((("L", "P"), ("R", "Q"))):
            order = (state[basis].T @ state[name] @ state[basis]).diagonal().argsort(descending=True)
            state[basis] = torch.linalg.qr(state[name] @ state[basis][:, order])[0]
            state["s"] = state["s"].index_select(dim, order)
    return updated


def schedule_free(w: Tensor, g: Tensor, state: State, plan: OptimPlan, t: int) -> Tensor:
    """Defazio et al. 2024, algorithm 1, with all three sequences written down."""
    b1, b2 = plan.betas
    rate = plan.learning_rate * math.sqrt(1 - b2**t)
    highest = max(rate, float(state.get("highest", torch.zeros(()))))
    total = float(state.get("total", torch.zeros(()))) + highest**2
    state |= {"highest": torch.tensor(highest, dtype=w.dtype), "total": torch.tensor(total, dtype=w.dtype)}
    state["s"] = b2 * state.get("s", torch.zeros_like(w)) + (1 - b2) * g**2
    step = g / (state["s"].sqrt() + plan.eps) + plan.weight_decay * w
    state["z"] = state.get("z", w) - rate * step
    share = highest**2 / total
    state["x"] = (1 - share) * state.get("x", w) + share * state["z"]
    return (1 - b1) * state["z"] + b1 * state["x"]


# a small tensor's states are not kept in 8 bits; larger ones have a test of their own
RULES: dict[str, Rule] = {
    "gd": sgd, "sgd": sgd, "momentum": momentum, "nesterov": nesterov, "rmsprop": rmsprop, "adagrad": adagrad,
    "adam": adam, "adamw": adamw, "nadam": nadam, "adafactor": adafactor, "lion": lion, "lamb": lamb, "muon": muon,
    "soap": soap, "schedule_free": schedule_free, "adamw_8bit": adamw,
}  # fmt: skip
