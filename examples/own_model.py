"""A model of your own for thrifty: any function that returns an `nn.Module`. Its job is own_model.yaml beside it.

Of classes, channels, height and width, which the data fixes, the function takes those that it names. The module takes
images [B, C, H, W] and returns logits [B, classes].
"""

from torch import Tensor, nn


class Mixer(nn.Module):
    """A block that mixes patches, then channels, as in an MLP-Mixer (Tolstikhin et al. 2021)."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.norm_patches, self.norm_width = nn.LayerNorm(width), nn.LayerNorm(width)
        self.patches = nn.Sequential(nn.Linear(patches, 2 * patches), nn.GELU(), nn.Linear(2 * patches, patches))
        self.width = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BPD: Tensor) -> Tensor:
        x_BPD = x_BPD + self.patches(self.norm_patches(x_BPD).transpose(1, 2)).transpose(1, 2)
        return x_BPD + self.width(self.norm_width(x_BPD))


def mixer(classes: int, channels: int, height: int, width: int, *, size: int = 2, layers: int = 4) -> nn.Module:
    """Build the model; ``size`` and ``layers`` are its own, and have defaults."""
    patches, features = (height // size) * (width // size), 64
    return nn.Sequential(
        nn.Conv2d(channels, features, size, stride=size),
        nn.Flatten(2),
        Transposed(),
        *(Mixer(patches, features) for _ in range(layers)),
        nn.LayerNorm(features),
        nn.Flatten(1),
        nn.Dropout(0.1),
        nn.Linear(patches * features, classes),
    )


class Transposed(nn.Module):
    """Channels [B, D, P] last."""

    def forward(self, x_BDP: Tensor) -> Tensor:
        return x_BDP.transpose(1, 2)
