"""Models: a name and a dataset in, an `nn.Module` out; nothing here loads torch until a model is built.

`resolve` turns a name of `MODELS` into a `ModelPlan` with every argument; `build` makes the module; then
`models.init.initialise` gives it weights. A model takes one tensor and returns logits: images [B, C, H, W] to
[B, classes], tokens [B, T] to [B, T, vocabulary]. `thrifty.testing.check_model` holds one to that.
"""

from thrifty.models.table import INIT_NAMES, MODELS, Recipe, build, resolve

__all__ = ["INIT_NAMES", "MODELS", "Recipe", "build", "resolve"]
