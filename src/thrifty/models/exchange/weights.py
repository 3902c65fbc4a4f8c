"""Tensors of a checkpoint into a model of ours and back, after every name and shape is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor, nn

from thrifty.errors import BundleError
from thrifty.models.exchange.folder import CONFIG, Checkpoint, opened, read_config
from thrifty.models.exchange.form import Arguments, Config, Form, Pair

SHOWN = 3


@dataclass(frozen=True)
class Filled:
    """What was not taken over.

    Attributes:
        new: names of ours that stay as they were drawn.
        unused: names of theirs that ours has no use of.
    """

    new: tuple[str, ...]
    unused: tuple[str, ...]


class Held:
    """Tensors that are in memory, asked for as those of a `Checkpoint`.

    Attributes:
        folder: what they are called in errors.
        shapes: of each tensor.
    """

    def __init__(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        self.folder, self._tensors = folder, tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def get(self, name: str) -> Tensor:
        """Return a tensor."""
        return self._tensors[name]


def fill(model: nn.Module, form: Form, arguments: Arguments, folder: Path) -> Filled:
    """Give a model the weights of a directory.

    Args:
        model: of the form's family, built with these arguments.
        form, arguments: of it.
        folder: in the layout of transformers.

    Raises:
        BundleError: the files cannot be read; tensors are missing, not known, or of another shape, and all of them are
            named; or one is not finite.
    """
    with opened(folder) as checkpoint:
        return fill_from(checkpoint, model, form, arguments)


@torch.no_grad()
def fill_from(checkpoint: Checkpoint | Held, model: nn.Module, form: Form, arguments: Arguments) -> Filled:
    """Give a model weights that are open or in memory; `fill` says the rest."""
    own, names = model.state_dict(keep_vars=True), _names(checkpoint, form)
    taken, new = _compare(own, form, arguments, names, checkpoint)
    for each in taken:
        parts = [_finite(checkpoint, names[name]) for name in each.theirs]
        found = torch.cat(parts) if len(parts) > 1 else parts[0]
        found = found.T if each.transposed else found.flatten(0, each.boxed) if each.boxed else found
        found = _first_moved(found, each.first, checkpoint.folder) if each.first else found
        own[each.ours].copy_(found[: len(own[each.ours])] if each.cut else found)
    used = {name for each in taken for name in each.theirs}
    return Filled(new=tuple(new), unused=tuple(sorted(names.keys() - used)))


def collect(model: nn.Module, form: Form, arguments: Arguments) -> dict[str, Tensor]:
    """Return a model's tensors under their names there, in their layout, on the CPU."""
    own = model.state_dict()
    found: dict[str, Tensor] = {}
    for each in form.pairs(arguments):
        tensor = own[each.ours].detach().cpu()
        tensor = tensor.T if each.transposed else tensor[(None,) * each.boxed]
        parts = tensor.split(each.rows) if len(each.theirs) > 1 else [tensor]
        # parts of one tensor would be written as the whole of it
        found |= {name: part.contiguous().clone() for name, part in zip(each.theirs, parts, strict=True)}
    return found


def _names(checkpoint: Checkpoint | Held, form: Form) -> dict[str, str]:
    """Return what each tensor of a checkpoint is called now, and its name in the files."""
    bare = form.inner and not any(name.startswith(form.inner) for name in checkpoint.shapes)
    names = {}
    for name in checkpoint.shapes:
        now = form.inner + name if bare else name
        for old, new in form.renamed:
            now = now.removesuffix(old) + new if now.endswith(old) else now
        names[now] = name
    return names


def _compare(
    own: dict[str, Tensor], form: Form, arguments: Arguments, names: dict[str, str], checkpoint: Checkpoint | Held
) -> tuple[list[Pair], list[str]]:
    """Return the pairs to take over and the names of ours that stay; or say all that is wrong."""
    taken, new, missing, other = [], [], [], []
    pairs = list(form.pairs(arguments))
    for each in pairs:
        wanted = _wanted(each, own[each.ours])
        lacking = [name for name in each.theirs if name not in names]
        shapes = {name: checkpoint.shapes[names[name]] for name in each.theirs if name in names}
        unlike = [name for name, shape in shapes.items() if not _fits(each, shape, wanted[name])]
        if each.head and (lacking or unlike):
            new.append(each.ours)
            continue
        missing += lacking
        other += [f"'{name}' {list(shapes[name])}, not {list(wanted[name])}" for name in unlike]
        taken.append(each)
    known = {name for each in pairs for name in each.theirs}
    extra = [name for name in names if name not in known and not any(fnmatch(name, spare) for spare in form.spare)]
    faults = [
        f"{says}: {', '.join(found[:SHOWN])}" + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
        for says, found in (
            ("missing", [f"'{name}'" for name in sorted(missing)]),
            ("not known", [f"'{name}'" for name in sorted(extra)]),
            ("of another shape", sorted(other)),
        )
        if found
    ]
    if faults:
        raise BundleError(
            f"the weights in '{checkpoint.folder}' are not those of its config: {'; '.join(faults)}",
            mend="Take config and weights of one model.",
        )
    return taken, new


def _first_moved(rows: Tensor, key: str, folder: Path) -> Tensor:
    """Bring the row that a config names before the others."""
    row = Config(read_config(folder), str(folder / CONFIG)).row(key, len(rows))
    return torch.cat([rows[row : row + 1], rows[:row], rows[row + 1 :]])


def _wanted(each: Pair, own: Tensor) -> dict[str, tuple[int, ...]]:
    shape = tuple(own.shape)[::-1] if each.transposed else (1,) * each.boxed + tuple(own.shape)
    if len(each.theirs) == 1:
        return {each.theirs[0]: shape}
    assert sum(each.rows) == shape[0], f"{each.rows} rows of {each.ours}, which has {shape[0]}"
    return {name: (rows, *shape[1:]) for name, rows in zip(each.theirs, each.rows, strict=True)}


def _fits(each: Pair, shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    longer = each.cut and shape[:1] >= wanted[:1] and shape[1:] == wanted[1:]
    return shape == wanted or longer


def _finite(checkpoint: Checkpoint | Held, name: str) -> Tensor:
    tensor = checkpoint.get(name)
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise BundleError(f"the weights '{name}' in '{checkpoint.folder}' hold NaN or infinity")
    return tensor
