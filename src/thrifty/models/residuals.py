"""Where the residual branches of our families end: the layers whose output is added to the stream."""

from __future__ import annotations

from torch import nn

import thrifty.models.bert as bert
import thrifty.models.gpt as gpt
import thrifty.models.llama as llama
import thrifty.models.resnet as resnet
import thrifty.models.speech as speech
import thrifty.models.vit as vit

ENDS: dict[type[nn.Module], str] = {
    resnet.BasicBlock: "bn2",
    resnet.BottleneckBlock: "bn3",
    gpt.Attention: "c_proj",
    gpt.FeedForward: "c_proj",
    llama.Attention: "proj",
    llama.FeedForward: "proj",
    bert.Attention: "proj",
    bert.FeedForward: "proj",
    vit.Attention: "proj",
    vit.FeedForward: "proj",
    speech.Mixing: "proj",
}


def residual_ends(model: nn.Module) -> dict[str, nn.Module]:
    """Name the last layer of each residual branch, in order; none where no block of ours is in the model.

    >>> block = resnet.BasicBlock(4, 4, 1, "pad")
    >>> list(residual_ends(nn.Sequential(block, nn.ReLU())))
    ['0.bn2']
    """
    return {
        f"{name}.{ENDS[type(module)]}".removeprefix("."): module.get_submodule(ENDS[type(module)])
        for name, module in model.named_modules()
        if type(module) in ENDS
    }
