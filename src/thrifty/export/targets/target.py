"""Write a bundle for another runtime: by the first route whose file, read back there, answers as torch does."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from thrifty.errors import BundleError
from thrifty.export.check import TOKENIZER, sha256
from thrifty.export.examples import served_example
from thrifty.export.parity import RELATIVE, RELATIVE_ROUNDED, Outputs, differences, worst
from thrifty.export.targets.decoder import Step, check_steps
from thrifty.export.targets.served import Source
from thrifty.files import flush_folder, flush_tree, writing
from thrifty.spec import KINDS

PARITY = "parity.json"


@dataclass(frozen=True)
class Route:
    """A way to a target.

    Attributes:
        says: which, for people.
        write: writes the files of a source beside and at a path, and returns facts for the report.
    """

    says: str
    write: Callable[[Source, Path], dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """A format of others.

    Attributes:
        says: one line about it.
        file: that holds the model, or that names the others.
        routes: the ways to it, the best first.
        read: reads the file in the runtime that it is for; input to outputs by name.
        require: raises `MissingExtraError` where a package is not installed.
        traced: it refuses sizes that the tracer refuses.
        decoder: writes a traced decoder to a path and returns it as read back; None where there is no such form.
        own: of a bundle that another engine than torch computes, by its name: the way from that engine's own graph.
        decoder_file: beside the model's file, that holds the decoder or names its files.
    """

    says: str
    file: str
    routes: tuple[Route, ...]
    read: Callable[[Path, Source], Callable[[Tensor], Outputs]]
    require: Callable[[], None] = lambda: None
    traced: bool = False
    decoder: Callable[[ExportedProgram, Path], Step] | None = None
    own: Mapping[str, Route] = field(default_factory=dict)
    decoder_file: str = ""


def export_to(target: Target, source: Source, folder: str | Path) -> dict[str, Any]:
    """Write a bundle's model for a target, and ``parity.json`` beside it; of texts the tokenizer too.

    Each route is tried in turn: its file is read back in the runtime that it is for and compared with torch on batches
    of 1, 3 and 8, of tokens and frames at three lengths each. The first that agrees to `RELATIVE` is kept.

    Of a bundle that another engine computes the file has that engine's own graph, and is compared with the bundle: to
    `RELATIVE_ROUNDED` where it is not in fp32.

    Returns:
        The report in ``parity.json``: file, its sha256 and bytes, the route, those that fell back and why, tolerance,
        and the largest difference of each output at each shape, in units of the largest that is expected there.

    Raises:
        MissingExtraError: a package is not installed.
        BundleError: no route leads there; the reason of each. Nothing is left behind.
        StorageError: the folder cannot be written.
    """
    target.require()
    folder = Path(folder).absolute()
    with writing(folder, "an exported model"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fell: dict[str, str] = {}
        engine = source.bundle.info.engine
        for route in target.routes if engine == "torch" else (target.own[engine],):
            fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".new", dir=folder.parent))
            try:
                report = _try(target, route, source, fresh) | {"fell_back": fell}
                (fresh / PARITY).write_text(json.dumps(report, indent=1), encoding="utf-8")
                _put(fresh, folder)
                return report
            except BundleError as error:
                fell[route.says] = error.what
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    reasons = "; ".join(f"{route}: {reason}" for route, reason in fell.items())
    raise BundleError(
        f"'{source.bundle.info.name}' cannot be exported as {target.says}: {reasons}",
        mend="Keep serving the torch bundle.",
    )


def _try(target: Target, route: Route, source: Source, folder: Path) -> dict[str, Any]:
    path, info = folder / target.file, source.bundle.info
    facts = route.write(source, path)
    if KINDS[info.data.kind].tokenized:
        shutil.copyfile(source.bundle.folder / TOKENIZER, folder / TOKENIZER)
    read = target.read(path, source)
    least = source.least_length if target.traced else 1
    apart = differences(read, source_answers(source), info.data, served=served_example, units=source.units, least=least)
    furthest = worst(apart)
    most = RELATIVE if info.engine == "torch" or info.precision == "fp32" else RELATIVE_ROUNDED
    if not furthest <= most:  # NaN must fail too
        raise BundleError(f"it answers otherwise than {info.engine}: difference {furthest:.3g}, over {most:g}")
    return {
        "model": info.name,
        "version": info.version,
        "file": path.name,
        "sha256": sha256(path),
        "bytes": sum(each.stat().st_size for each in folder.rglob("*") if each.is_file() and each.name != TOKENIZER),
        "route": route.says,
        "least_length": least,
        "compared_with": info.engine,
        "precision": "fp32" if info.engine == "torch" else info.precision,
        "tolerance": most,
        "max_difference": furthest,
        "differences": apart,
        "torch": torch.__version__,
        **facts,
        **_decoder(target, source, folder),
    }


def _decoder(target: Target, source: Source, folder: Path) -> dict[str, Any]:
    """Write a decoder that keeps keys and values beside the model, where there is one that answers as torch does."""
    if target.decoder is None or not hasattr(source.module.model, "pasts"):
        return {}
    model: Any = source.module.model
    beside = folder / target.decoder_file
    try:
        beside.parent.mkdir(exist_ok=True)
        step = target.decoder(source.decoder, beside)
        furthest = check_steps(step, model, model.vocabulary)
        return {"decoder": {"file": target.decoder_file, "sha256": sha256(beside), "max_difference": furthest}}
    except BundleError as error:
        if beside.parent != folder:
            shutil.rmtree(beside.parent)
        for each in folder.glob("decoder.*"):
            each.unlink()
        return {"decoder": {"refused": error.what}}


def source_answers(source: Source) -> Callable[[Tensor], Outputs]:
    """Return what the bundle answers, by name."""

    def answer(x: Tensor) -> Outputs:
        with torch.inference_mode():
            return {name: value.numpy() for name, value in source.module(x).items()}

    return answer


def _put(fresh: Path, folder: Path) -> None:
    flush_tree(fresh)
    folder.mkdir(exist_ok=True)
    # the report last: it holds the hash of the model
    for path in sorted(fresh.iterdir(), key=lambda path: path.name == PARITY):
        if path.is_dir():  # none is put in the place of one that holds files
            shutil.rmtree(folder / path.name, ignore_errors=True)
        path.replace(folder / path.name)
    flush_folder(folder)
