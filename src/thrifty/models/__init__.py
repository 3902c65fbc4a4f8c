"""Models: a name and a dataset in, an `nn.Module` out; nothing here loads torch until a model is built.

`resolve` turns a name into a `ModelPlan` with every argument: a name of `MODELS`, ``ours:<directory>`` of weights to
start from, a user's ``package.module:function``, or ``hf:<directory or id>``. `build` makes the module; then
`models.init.initialise` gives it weights. A model takes one tensor and returns logits: images [B, C, H, W] or texts
[B, T], 0 for padding, to [B, classes], tokens [B, T] to [B, T, vocabulary]. `thrifty.testing.check_model` holds one to
that.
"""

from thrifty.models.table import (
    CONSTANT_INITS,
    INIT_NAMES,
    MODELS,
    Recipe,
    build,
    check_name,
    content_key,
    dropping,
    resolve,
)
from thrifty.models.traits import FAMILIES, Traits, traits_of

__all__ = [
    "CONSTANT_INITS",
    "FAMILIES",
    "INIT_NAMES",
    "MODELS",
    "Recipe",
    "Traits",
    "build",
    "check_name",
    "content_key",
    "dropping",
    "resolve",
    "traits_of",
]
