"""Scale: what small runs of a family say of a budget: how the loss goes by size and data, and what to buy.

`family` has the sizes, `layout` chooses small runs that fit what they may take, `small` makes them, `rates` compares
learning rates at two widths, `curve` fits the law by `solve`, `buy` offers the rest of the budget to every size. What
carries out a run is given from above.
"""

from thrifty.scale.curve import Point, fit
from thrifty.scale.family import Family
from thrifty.scale.scale import scale
from thrifty.scale.small import Ran, Runner

__all__ = ["Family", "Point", "Ran", "Runner", "fit", "scale"]
