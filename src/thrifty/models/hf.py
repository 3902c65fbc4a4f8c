"""A model of Hugging Face's transformers: its config from a directory or the hub, its weights from safetensors.

A config alone is trained from the start and takes its sizes from the data; with weights it keeps its own, and the data
must fit them. No code of a directory or of the hub is run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thrifty.errors import JobError, MissingExtraError, nearest
from thrifty.models.exchange.folder import CONFIG, INDEX, PICKLED, WEIGHTS, content_hash
from thrifty.spec import Dataset, ModelPlan

if TYPE_CHECKING:
    from torch import nn

    from thrifty.models.logits import Logits

PREFIX = "hf:"
AUTO = {"classify": "AutoModelForImageClassification", "language": "AutoModelForCausalLM"}
TASKS = {"image": "classify", "language": "language"}
# What a config could use to run code or reach the network, and what depends on where it was written.
_LEFT_OUT = {
    "auto_map", "attn_implementation", "experts_implementation", "quantization_config", "dtype", "torch_dtype",
    "transformers_version",
}  # fmt: skip
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def is_hf(name: str) -> bool:
    """Say whether a model's name has the form of a Hugging Face one."""
    return name.startswith(PREFIX)


def find(name: str) -> str:
    """Check a name without loading anything; return the directory or id.

    Raises:
        MissingExtraError: transformers is not installed.
        JobError: it is neither a directory with a config nor an id, or its weights are pickled.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtraError(f"the model '{name}'", package="transformers", extra="hf")
    place = name.removeprefix(PREFIX)
    folder = Path(place)
    if not folder.is_dir():
        if _ID.fullmatch(place):
            return place
        beside = [each.name for each in folder.parent.iterdir() if each.is_dir()] if folder.parent.is_dir() else []
        raise JobError(
            f"there is no directory '{place}', named by the model '{name}'",
            nearest=nearest(folder.name, beside),
            mend="Name a directory with a config.json, or an id of the hub such as hf:openai-community/gpt2.",
        )
    if not (folder / CONFIG).is_file():
        raise JobError(f"directory '{folder}' has no {CONFIG}", mend="Save a model in it: model.save_pretrained(...).")
    pickled = [each for each in PICKLED if (folder / each).is_file()]
    if pickled and not _has_weights(folder):
        raise JobError(
            f"the weights in '{folder}' are pickled ({pickled[0]}), and a pickle can run code",
            mend="Save them as safetensors, or remove the file to train from the start.",
        )
    return place


def content_key(name: str) -> str:
    """Key of what a directory holds; of an id, the id."""
    place = find(name)
    folder = Path(place)
    if not folder.is_dir():
        return name
    return PREFIX + content_hash(folder)


def resolve(name: str, dataset: Dataset) -> ModelPlan:
    """Read a config and fit it to the data, or say why the data does not fit its weights.

    Raises:
        MissingExtraError: transformers is not installed.
        JobError: there is no such config, its model does another task, or its weights are for other data.
    """
    place = find(name)
    folder = Path(place)
    local = folder.is_dir()
    shown = f"{PREFIX}{folder.name}" if local else name
    if dataset.kind not in TASKS:
        raise JobError(
            f"model '{shown}' does not learn from data of kind '{dataset.kind}' yet",
            mend="Take a model of the table: thrifty models.",
        )
    task = TASKS[dataset.kind]
    with library() as transformers:
        try:
            config = transformers.AutoConfig.from_pretrained(place, trust_remote_code=False, local_files_only=local)
        except (OSError, ValueError, KeyError) as error:
            raise _unread(place, local, error) from None
        kind = getattr(transformers, AUTO[task])
        if type(config) not in kind._model_mapping:
            raise JobError(
                f"transformers has no model of type '{config.model_type}' for the task '{task}'",
                mend=f"Types it has: {', '.join(sorted(each.model_type for each in kind._model_mapping))}.",
            )
        weights = place if not local or _has_weights(folder) else ""
        revision = "" if local else str(getattr(config, "_commit_hash", None) or "")
        _fit(config, dataset, shown, loaded=bool(weights))
        plain = json.dumps(_plain(config.to_dict()), sort_keys=True)
    arguments = {"config": plain, "task": task, "weights": weights, "revision": revision}
    return ModelPlan(name=shown, family="hf", arguments=arguments)


def make(config: str, task: str, weights: str, revision: str) -> nn.Module:
    """Build the model of a config with its own initial weights; `load_weights` brings those of ``weights``.

    Raises:
        MissingExtraError: transformers is not installed.
        JobError: the config describes no model.
    """
    from torch._subclasses.fake_tensor import DataDependentOutputException

    from thrifty.models.logits import Logits

    with library() as transformers:
        try:
            model = getattr(transformers, AUTO[task]).from_config(
                _config(transformers, config), trust_remote_code=False
            )
        except DataDependentOutputException:
            raise
        except Exception as error:  # whatever a model makes of a config that does not fit it
            raise JobError(f"the config describes no model: {_first_line(error)}") from error
    return Logits(model, weights=weights, revision=revision)


def load_weights(model: Logits, seed: int) -> str:
    """Load the weights that a model names, in place of its own; return one line that says what was done.

    What the data's classes are answered by may be new: it is drawn by ``seed``, and all else must be there.

    Raises:
        JobError: there are none, or they are those of another model.
    """
    import torch

    own: Any = model.model
    place, config = model.weights, own.config
    local = Path(place).is_dir()
    model.model = torch.nn.Identity()  # its weights go before those to load come
    with library(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            found, told = type(own).from_pretrained(
                place,
                config=config,
                use_safetensors=True,
                local_files_only=local,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **({"revision": model.revision} if model.revision else {}),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise _unread(place, local, error) from None
    fresh = {*told["missing_keys"], *(each[0] for each in told["mismatched_keys"])}
    wrong = [each for each in sorted(fresh) if found.state_dict()[each].shape[:1] != (config.num_labels,)]
    if wrong:
        raise JobError(
            f"the weights in '{place}' do not fit its config: {', '.join(wrong[:5])} missing or of another shape",
            mend="Take config and weights of one model.",
        )
    model.model = found.float()
    head = f"; new: {', '.join(sorted(fresh))}" if fresh else ""
    return f"weights of {place}{head}"


@contextlib.contextmanager
def library() -> Iterator[Any]:
    """Transformers, told to keep to errors and to draw no bars."""
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("a Hugging Face model", package="transformers", extra="hf") from None
    says = transformers.utils.logging
    level, bars = says.get_verbosity(), says.is_progress_bar_enabled()
    says.set_verbosity_error()
    says.disable_progress_bar()
    try:
        yield transformers
    finally:
        says.set_verbosity(level)
        if bars:
            says.enable_progress_bar()


def _config(transformers: Any, text: str) -> Any:
    values = json.loads(text)
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    config.use_cache = False
    return config


def _fit(config: Any, dataset: Dataset, name: str, *, loaded: bool) -> None:
    """Give a config the sizes of the data; with weights, refuse data that they were not made for."""
    if dataset.kind == "image":
        channels, height, _ = dataset.shape
        sizes = {"num_channels": channels, "image_size": height}
        mends = {"num_channels": "data.color: rgb" if channels == 1 else "data.color: gray", "image_size": "data.size"}
        config.num_labels = len(dataset.labels)
    else:
        sizes = {"vocab_size": dataset.vocabulary}
        mends = {"vocab_size": "data.vocabulary"}
        longest = getattr(config, "max_position_embeddings", None)
        if isinstance(longest, int) and longest < dataset.shape[0]:
            sizes["max_position_embeddings"] = dataset.shape[0]
            mends["max_position_embeddings"] = "data.length"
        if hasattr(config, "is_decoder"):
            config.is_decoder = True  # or a BERT would read the token that it is to tell
    for key, wanted in sizes.items():
        own = getattr(config, key, None)
        if own is None or own == wanted or list(_pair(own)) == [wanted, wanted]:
            continue
        if loaded:
            mend = f"Set {mends[key]}" + ("" if ":" in mends[key] else f": {own}")
            raise JobError(
                f"the weights of '{name}' have {key} {own}, and the data has {wanted}",
                mend=f"{mend} in the job, or remove the weights to train from the start.",
            )
        setattr(config, key, wanted)
    if dataset.kind == "language":
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if isinstance(getattr(config, key, None), int) and getattr(config, key) >= dataset.vocabulary:
                setattr(config, key, None)


def _pair(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _plain(values: Any) -> Any:
    """A config without what may run code, reach the network, or speaks of another place."""
    if isinstance(values, dict):
        kept = {key: each for key, each in values.items() if not str(key).startswith("_") and key not in _LEFT_OUT}
        return {key: _plain(each) for key, each in kept.items()}
    return [_plain(each) for each in values] if isinstance(values, list | tuple) else values


def _has_weights(folder: Path) -> bool:
    return any((folder / each).is_file() for each in (WEIGHTS, INDEX))


def _unread(place: str, local: bool, error: Exception) -> JobError:
    if local:
        return JobError(
            f"the model in '{place}' cannot be read: {_first_line(error)}",
            mend="Code in a directory is not run; a model of your own is named package.module:function.",
        )
    return JobError(
        f"'{place}' cannot be read from the Hugging Face hub: {_first_line(error)}",
        mend="Check the id and the network, or download it and name its directory: hf:<directory>.",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
