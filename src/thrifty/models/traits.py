"""What a model contains, by which the rules of learning go: its family tells, or its modules are looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace

from thrifty.models.table import build
from thrifty.spec import ModelPlan


@dataclass(frozen=True)
class Traits:
    """What bears on how a model is trained.

    Attributes:
        convolves: windows of a convolution overlap, unlike those that cut an image into patches.
        batch_norm: a norm looks across the batch.
        attends: it has attention.
        recurs: it has recurrent layers.
        loaded: its weights were trained before.
        drops: it has dropout that is not zero.
        packs: it can be trained on `thrifty.models.packed.Packed` texts or documents.
    """

    convolves: bool = False
    batch_norm: bool = False
    attends: bool = False
    recurs: bool = False
    loaded: bool = False
    drops: bool = False
    packs: bool = False

    def __str__(self) -> str:
        """Name them.

        >>> str(Traits(convolves=True, batch_norm=True)), str(Traits())
        ('overlapping convolutions, batch norm', 'plain layers')
        """
        names = {
            "overlapping convolutions": self.convolves,
            "batch norm": self.batch_norm,
            "attention": self.attends,
            "recurrent layers": self.recurs,
            "weights trained before": self.loaded,
        }
        return ", ".join(name for name, there in names.items() if there) or "plain layers"


FAMILIES = {
    "resnet": Traits(convolves=True, batch_norm=True),
    "fast_convnet": Traits(convolves=True, batch_norm=True),
    "gpt": Traits(attends=True, packs=True),
    "llama": Traits(attends=True, packs=True),
    "bert": Traits(attends=True, packs=True),
    "vit": Traits(attends=True),
    "bert_original": Traits(attends=True, packs=True),
    "ngrams": Traits(drops=True),
    "mlp": Traits(),
    "speech": Traits(convolves=True, attends=True, drops=True),
    "wav2vec2": Traits(convolves=True, attends=True),
    "tabular": Traits(drops=True),
}


def traits_of(plan: ModelPlan) -> Traits:
    """Tell a model's traits from its family, or from the modules it is built of.

    Attention is told by the name of a module's class, as torch and transformers have it.
    """
    if plan.family in FAMILIES:
        return replace(FAMILIES[plan.family], loaded=bool(plan.weights))
    from torch import nn
    from torch.nn.modules.batchnorm import _BatchNorm
    from torch.nn.modules.conv import _ConvNd

    modules = list(build(plan, "meta").modules())
    convolutions = [module for module in modules if isinstance(module, _ConvNd)]
    return Traits(
        convolves=any(
            size > step for each in convolutions for size, step in zip(each.kernel_size, each.stride, strict=True)
        ),
        batch_norm=any(isinstance(module, _BatchNorm) for module in modules),
        attends=any("attention" in type(module).__name__.lower() for module in modules),
        recurs=any(isinstance(module, nn.RNNBase) for module in modules),
        loaded=bool(plan.arguments.get("weights")),
        drops=any(isinstance(module, nn.Dropout) and module.p > 0 for module in modules),
    )
