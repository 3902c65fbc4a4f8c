"""A command of a shell that asks a served model, for who has just started it."""

from __future__ import annotations

import json
import shlex

from thrifty.spec import BundleInfo

# a part of the instance that the shell fills in
_FILE = """{"b64": "'$(base64 -w0 FILE)'"}"""


def command(info: BundleInfo, url: str) -> str:
    """Write the command that asks a model one input by TensorFlow Serving's protocol, which every kind of model has.

    Args:
        info: of the model's bundle.
        url: of the server, without a path.
    """
    if info.data.kind in {"audio", "image"}:
        body = f"""'{{"instances": [{_FILE}]}}'"""
    else:
        body = shlex.quote(json.dumps({"instances": [_instance(info)]}, ensure_ascii=False))
    return f"curl {url}/v1/models/{info.name}:predict -d {body}"


def _instance(info: BundleInfo) -> object:
    if info.data.table is not None:
        return {column.name: 0 if column.kind == "number" else "TEXT" for column in info.data.table.columns}
    return {"prompt": "TEXT", "max_tokens": 40} if info.task == "language" else "TEXT"
