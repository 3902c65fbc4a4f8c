"""A user's own model: ``package.module:function`` found as a file, imported, called with what the data fixes.

Reading a bundle runs no code that came with it. A bundle of an own model names a function and the content of its
source; it is built from a source of that content which this user has planned or run with here before, or has named in
``$THRIFTY_MODELS``.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import BundleError, JobError, nearest
from thrifty.files import write_atomic
from thrifty.spec import Dataset, ModelPlan
from thrifty.spec.folders import cache_folder

if TYPE_CHECKING:
    from torch import nn

MAX_NAME = 100
TRUSTED = "THRIFTY_MODELS"
# packages installed here do not change between two runs: of them the named module alone is hashed
_INSTALLED = {"site-packages", "dist-packages"}
_imported: set[str] = set()


@dataclass(frozen=True)
class Source:
    """Where a function was found.

    Attributes:
        name: ``package.module:function``.
        folder: that it is imported from; empty for the Python path.
        files: its module and what that imports of the same folder, the module's own file first.
        sha256: of name and files.
    """

    name: str
    folder: str
    files: tuple[Path, ...]
    sha256: str


def is_own(name: str) -> bool:
    """Say whether a model's name has the form of an own one; a folder may stand before it.

    >>> is_own("nets.small:net"), is_own("/home/me/nets:net"), is_own("hf:gpt2"), is_own("resnet8")
    (True, True, False, False)
    """
    return ":" in name and not name.startswith(("hf:", "ours:"))


def find(name: str) -> Source:
    """Find the source of an own model without running it, and remember it as this user's.

    Raises:
        JobError: no such module or function; the nearest name is given.
    """
    folder, _, short = name.rpartition("/")
    module, _, function = short.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), function]) or len(short) > MAX_NAME:
        raise JobError(
            f"'{short}' names no function of a module",
            mend=f"Write package.module:function, {MAX_NAME} characters at most.",
        )
    path = [folder] if folder else sys.path
    spec = _locate(module, path)
    if spec is None or not spec.has_location or spec.origin is None:
        where = f"in '{folder}'" if folder else "beside the job file or on the Python path"
        top = module.partition(".")[0]
        raise JobError(
            f"there is no module '{module}' {where}, named by the model '{short}'",
            nearest=nearest(top, _modules_in(folder or ".")) if _locate(top, path) is None else "",
            mend="Put its file beside the job, or its folder on PYTHONPATH.",
        )
    files = _closure(module, _root(module, path))
    names = _names_of(files[module])
    if names is not None and function not in names:
        raise JobError(
            f"module '{module}' ({files[module]}) has no function '{function}'",
            nearest=nearest(function, names),
            mend=f"It has: {', '.join(sorted(each for each in names if not each.startswith('_'))) or 'nothing'}.",
        )
    digest = hashlib.sha256(short.encode())
    for each, file in sorted(files.items()):
        digest.update(b"\0" + each.encode() + b"\0" + file.read_bytes())
    source = Source(short, folder, (files.pop(module), *files.values()), digest.hexdigest())
    _remember(source)
    return source


def resolve(name: str, dataset: Dataset) -> ModelPlan:
    """Bind a function to what the data fixes, of what it takes: classes, channels, …, or vocabulary and length.

    Raises:
        JobError: it cannot be imported, or needs an argument that the data does not fix.
    """
    source = find(name)
    facts = _facts(dataset)
    taken = _taken(source, facts)
    arguments = {"function": source.name, "sha256": source.sha256, **taken}
    return ModelPlan(name=source.name, family="own", arguments=arguments)


def files_of(plan: ModelPlan) -> tuple[Path, ...]:
    """The source files of an own model's plan; none for another family."""
    if plan.family != "own":
        return ()
    return _trusted(plan.arguments["function"], plan.arguments["sha256"]).files


def make(function: str, sha256: str, **facts: Any) -> nn.Module:
    """Call the function that a plan names.

    On ``meta``, a function that looks at values, which are not there, is called again for real.

    Raises:
        BundleError: its source is not the one of the plan.
        JobError: it fails, or returns no module.
    """
    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException

    source = _trusted(function, sha256)
    try:
        with _on_path(source.folder):
            made = _function(source)(**facts)
    except DataDependentOutputException:
        raise
    except Exception as error:
        if torch.get_default_device().type == "meta":
            with torch.device("cpu"):
                return make(function, sha256, **facts)
        raise failure(error, source.name, source.files) from error
    return _module(made, source.name)


def failure(error: Exception, name: str, files: tuple[Path, ...] = ()) -> JobError:
    """Tell a user's own error, with its place in the user's files."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename) in files]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    said = " ".join(str(error).split())[:300]
    return JobError(f"model '{name}' fails with {type(error).__name__}: {said}{place}")


def _module(made: Any, name: str) -> nn.Module:
    from torch import nn

    from thrifty.models.logits import Logits

    if not isinstance(made, nn.Module):
        raise JobError(f"model '{name}' returned {_kind(made)}, and an nn.Module was wanted")
    return Logits(made)


def _kind(made: Any) -> str:
    return f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"


# what the sides of a sample's shape are called, where it is no row of tokens
_SIDES: dict[str, tuple[str, ...]] = {"audio": ("frames", "bands"), "image": ("channels", "height", "width")}


def _facts(dataset: Dataset) -> dict[str, int]:
    facts = {"classes": len(dataset.labels)} if dataset.labels else {}
    if dataset.task == "transcribe":
        facts = {"vocabulary": dataset.vocabulary}
    if dataset.length:
        return {**facts, "vocabulary": dataset.vocabulary, "length": dataset.length}
    if (table := dataset.table) is not None:
        return {**facts, "numbers": table.numbers, "codes": table.codes, "vocabulary": table.vocabulary}
    return {**facts, **dict(zip(_SIDES[dataset.kind], dataset.shape, strict=True))}


def _taken(source: Source, facts: dict[str, int]) -> dict[str, int]:
    """The facts that the function has a parameter for."""
    from torch import nn

    function = _function(source)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise JobError(f"it cannot be told what model '{source.name}' takes: {error}") from None
    named = {each.name for each in parameters if each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY}}
    # a class without an `__init__` of its own shows that of nn.Module, which takes nothing for all its **kwargs
    bare = getattr(function, "__init__", None) is nn.Module.__init__
    anything = not bare and any(each.kind is each.VAR_KEYWORD for each in parameters)
    taken = {key: value for key, value in facts.items() if anything or key in named}
    needed = [each for each in parameters if each.default is each.empty and each.kind < each.VAR_KEYWORD]
    missing = [each.name for each in needed if each.kind is not each.VAR_POSITIONAL and each.name not in taken]
    if missing:
        raise JobError(
            f"model '{source.name}' needs {', '.join(repr(each) for each in missing)}, which its data does not fix",
            nearest=nearest(missing[0], facts),
            mend=f"The data fixes {', '.join(facts)}; give other arguments a default.",
        )
    return taken


@functools.cache
def _function(source: Source) -> Callable[..., Any]:
    """Import a function; what was imported for another source of the same names is forgotten first."""
    module, _, function = source.name.partition(":")
    for each in _imported:
        sys.modules.pop(each, None)
    _imported.clear()
    before = set(sys.modules)
    try:
        with _on_path(source.folder):
            found = importlib.import_module(module)
    except Exception as error:
        raise failure(error, source.name, source.files) from error
    if source.folder:
        _imported.update(each for each in set(sys.modules) - before if _lies_in(sys.modules[each], source.folder))
    file = Path(found.__file__ or "").resolve()
    if file != source.files[0].resolve():
        raise JobError(
            f"the name of module '{module}' is taken: it is already '{file}', not '{source.files[0]}'",
            mend="Rename your file.",
        )
    made = getattr(found, function, None)
    if not callable(made):
        raise JobError(
            f"'{function}' of module '{module}' is {'missing' if made is None else _kind(made)}, not a function",
            nearest=nearest(function, [each for each in vars(found) if each != function]),
        )
    called: Callable[..., Any] = made
    return called


def _lies_in(module: Any, folder: str) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(folder) in Path(file).parents


@contextlib.contextmanager
def _on_path(folder: str) -> Iterator[None]:
    """Import from a folder first, as Python does for a script in it, and leave no compiled files there.

    A compiled file is told from its source by whole seconds and size: an edit can be missed.
    """
    if not folder:
        yield
        return
    importlib.invalidate_caches()
    compiled, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.dont_write_bytecode = compiled
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _trusted(name: str, sha256: str) -> Source:
    """Find a source of known content among those of this user."""
    memory = cache_folder() / "own" / sha256
    named = [each.strip() for each in os.environ.get(TRUSTED, "").split(",")]
    places = [each for each in named if each.rpartition("/")[2] == name]
    if sha256.isalnum() and memory.is_file():
        places.append(memory.read_text(encoding="utf-8").strip())
    for place in places:
        with contextlib.suppress(JobError):
            source = find(place)
            if source.sha256 == sha256:
                return source
    if places:
        raise BundleError(
            f"the code of model '{name}' in '{places[-1]}' is not as it was when this was written",
            mend="Put it back as it was, or run the job again.",
        )
    raise BundleError(
        f"the code of model '{name}' is not known here, and no code is taken from a bundle",
        mend=f"Put its file on this machine and name it: {TRUSTED}=/its/folder/{name}.",
    )


def _remember(source: Source) -> None:
    path = cache_folder() / "own" / source.sha256
    place = f"{source.folder}/{source.name}" if source.folder else source.name
    if not path.is_file() or path.read_text(encoding="utf-8").strip() != place:
        write_atomic(path, place + "\n", purpose="where a model of yours lies")


def _locate(module: str, path: list[str]) -> ModuleSpec | None:
    """Find a module without importing its parents."""
    spec = None
    for part in module.split("."):  # by its own name alone: for a dotted one Python wants the parent imported
        spec = PathFinder.find_spec(part, path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    return spec


def _root(module: str, path: list[str]) -> str:
    """The folder of the path that a module's top package was found in."""
    top = _locate(module.partition(".")[0], path)
    assert top is not None
    inside = Path(next(iter(top.submodule_search_locations or []), "") or str(top.origin))
    return str(inside.parent)


def _closure(module: str, root: str) -> dict[str, Path]:
    """The files of a module, its packages, and what they import of the same folder, by name of module."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = _locate(name, [root]) if name and name not in found else None
        if spec is None or not spec.has_location or spec.origin is None:
            continue
        found[name] = Path(spec.origin)
        if Path(root).name not in _INSTALLED:
            package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
            waiting += [name.rpartition(".")[0], *_imports_of(found[name], package)]
    return found


def _imports_of(file: Path, package: str) -> Iterator[str]:
    """Every name that a file's import statements could mean a module by."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _names_of(file: Path) -> set[str] | None:
    """The names a module binds at its top, or None where only running it would tell."""
    names: set[str] = set()
    for node in _tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        elif not isinstance(node, ast.Expr):
            return None  # an `if` or a `try` may bind anything
    return None if names & {"*", "__getattr__"} or file.suffix != ".py" else names


def _tree(file: Path) -> ast.Module:
    if file.suffix != ".py":
        return ast.Module([], [])
    try:
        return ast.parse(file.read_bytes(), filename=str(file))
    except (SyntaxError, ValueError) as error:
        raise JobError(f"'{file}' is not Python: {error}") from None


def _modules_in(folder: str) -> list[str]:
    try:
        return [path.stem for path in Path(folder).iterdir() if path.suffix == ".py" or path.is_dir()]
    except OSError:
        return []
