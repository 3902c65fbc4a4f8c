"""Which parameter is updated how: a kind for each by the module that holds it, and a rule for each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

Groups = list[dict[str, Any]]
# where torch has fused kernels for an update
FUSED_DEVICES = {"cpu", "cuda"}


@dataclass(frozen=True)
class Rule:
    """What a kind of parameter gets.

    Attributes:
        decays: weight decay falls on it.
        hidden: it maps the network's inside to its inside: what optimizers of whole matrices are for. They leave the
            other kinds to AdamW.
        why: the reason, with its source.
    """

    decays: bool
    hidden: bool
    why: str


# Jordan et al. 2024: the post on Muon and the README of its code, by Keller Jordan and others.
RULES: dict[str, Rule] = {
    "vector": Rule(False, False, "norms and biases; decay gains nothing there (He et al. 2019, section 3.1)"),
    "embedding": Rule(True, False, "rows that are vectors of their own, no map; it decays as in GPT-3's training"),
    "input": Rule(True, False, "the first convolution, which maps raw input (Jordan et al. 2024)"),
    "head": Rule(True, False, "the last layer, a vector for each answer (Jordan et al. 2024)"),
    "convolution": Rule(True, True, "a matrix of channels by all that a window holds (Jordan et al. 2024)"),
    "matrix": Rule(True, True, "a map from the network's inside to its inside (Jordan et al. 2024)"),
}
# optimizers that look at a matrix as a whole, and leave to AdamW what is no hidden one
WHOLE_MATRICES = frozenset(["muon", "soap"])


@dataclass(frozen=True)
class Parameters:
    """The trained parameters of a model by kind, each shared one once, in the model's order.

    Attributes:
        by_kind: by the names of `RULES`.
        shares: of the rate that parameters get, by the ``id`` of each; all of it where there is none.
    """

    by_kind: dict[str, list[nn.Parameter]]
    shares: Mapping[int, float] = field(default_factory=dict)

    @property
    def devices(self) -> set[str]:
        """Types of the devices they lie on, such as ``cuda``."""
        return {each.device.type for kind in self.by_kind.values() for each in kind}

    @property
    def fused(self) -> bool:
        """Whether torch's fused kernels can update all of them."""
        return self.devices <= FUSED_DEVICES

    @property
    def alike(self) -> bool:
        """Whether all of them are of one type and on one device."""
        return len({(each.dtype, each.device) for kind in self.by_kind.values() for each in kind}) <= 1

    def instead(self, tensors: Mapping[int, Tensor]) -> Parameters:
        """Return other tensors in the places of these, by the ``id`` of each."""
        by_kind = {name: [tensors[id(each)] for each in kind] for name, kind in self.by_kind.items()}
        return Parameters(by_kind, {id(tensors[each]): share for each, share in self.shares.items() if each in tensors})  # type: ignore[arg-type]

    def groups(self, weight_decay: float, *, hidden: bool | None = None) -> Groups:
        """Return two groups, what decays and what does not: of hidden parameters, of the others, or of all (None).

        Parameters that get a ``share`` of the rate are in groups of their own, and decay as the others do: by the
        product of rate and decay.
        """

        def of(decays: bool) -> Groups:
            kinds = [name for name, rule in RULES.items() if rule.decays == decays and hidden in {None, rule.hidden}]
            alike: dict[float, list[nn.Parameter]] = {1.0: []}
            for each in (each for name in kinds for each in self.by_kind[name]):
                alike.setdefault(self.shares.get(id(each), 1.0), []).append(each)
            decay = weight_decay if decays else 0.0
            return [
                {"params": found, "weight_decay": decay / share, **({} if share == 1 else {"share": share})}
                for share, found in alike.items()
            ]

        return of(True) + of(False)


def rate_of(group: Mapping[str, Any], rate: float) -> float:
    """Return a group's share of a rate.

    >>> rate_of({"share": 0.25}, 0.1), rate_of({}, 0.1)
    (0.025, 0.1)
    """
    share: float = group.get("share", 1.0)
    return rate * share


def sort_parameters(model: nn.Module, shares: Mapping[str, float] | None = None) -> Parameters:
    """Sort the trained parameters of a model into the kinds of `RULES`; by patterns of their names, note their shares.

    The head is a linear layer after which no module with parameters comes; one tied to an embedding is an embedding.
    The input is the first convolution of a model that embeds nothing before it.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    >>> {kind: len(found) for kind, found in sort_parameters(model).by_kind.items() if found}
    {'vector': 4, 'head': 1, 'matrix': 1}
    """
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    modules = [each for each in model.modules() if next(each.parameters(recurse=False), None) is not None]
    embeddings = {id(each.weight) for each in modules if isinstance(each, nn.Embedding | nn.EmbeddingBag)}
    opening = [each for each in modules if isinstance(each, _ConvNd | nn.Embedding | nn.EmbeddingBag)][:1]
    first = [id(each.weight) for each in opening if isinstance(each, _ConvNd)]
    last = [id(each.weight) for each in modules[-1:] if isinstance(each, nn.Linear)]

    def kind(parameter: nn.Parameter) -> str:
        if parameter.dim() < 2:
            return "vector"
        for name, there in (("embedding", embeddings), ("input", first), ("head", last)):
            if id(parameter) in there:
                return name
        return "convolution" if parameter.dim() > 2 else "matrix"

    found: dict[str, list[nn.Parameter]] = {name: [] for name in RULES}
    for parameter in model.parameters():
        if parameter.requires_grad:
            found[kind(parameter)].append(parameter)
    patterns = shares or {}
    matched = {
        id(parameter): share
        for name, parameter in model.named_parameters()
        for pattern, share in patterns.items()
        if fnmatchcase(name, pattern)
    }
    assert not patterns or matched, f"no parameter is of {', '.join(patterns)}"
    return Parameters(found, matched)


def tell_rules(name: str, weight_decay: float) -> tuple[str, str]:
    """Say for ``plan.why`` which kinds of parameters an optimizer treats alike, and the reason.

    >>> tell_rules("adamw", 0.01)[0]
    'decay: embedding, input, head, convolution, matrix; none: vector'
    >>> tell_rules("muon", 0.0)[0]
    'muon: convolution, matrix; adamw: vector, embedding, input, head; no decay'
    """
    kinds = {"hidden": [k for k, rule in RULES.items() if rule.hidden], "decays": [k for k in RULES if RULES[k].decays]}
    others = {trait: [kind for kind in RULES if kind not in there] for trait, there in kinds.items()}
    parts, told = [], set()
    if name in WHOLE_MATRICES:
        parts.append(f"{name}: {', '.join(kinds['hidden'])}; adamw: {', '.join(others['hidden'])}")
        told |= set(RULES) - set(others["decays"])
    if weight_decay:
        parts.append(f"decay: {', '.join(kinds['decays'])}; none: {', '.join(others['decays'])}")
        told |= set(others["decays"])
    else:
        parts.append("no decay")
    reason = "; ".join(f"{kind}: {rule.why}" for kind, rule in RULES.items() if kind in told)
    return "; ".join(parts), reason or "all kinds of parameters are treated alike"
