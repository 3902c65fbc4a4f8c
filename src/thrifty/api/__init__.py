"""The verbs in Python: each takes and returns plain things, and is a short straight call into the rooms below.

>>> from thrifty import api
>>> api.models()["resnet8"]  # doctest: +ELLIPSIS
'...'
"""

from thrifty.api.ledger import RUNS, bill, entries, export_ledger, open_ledger, silent
from thrifty.api.notebook import register, show
from thrifty.api.runs import hardware, init, models, plan, report, run, schema, tune
from thrifty.api.scaling import scale
from thrifty.api.serving import (
    asking,
    bundle_folder,
    compress,
    export,
    export_bundle,
    export_kserve,
    formats,
    predict,
    run_of,
    serve,
)
from thrifty.api.steering import steer

__all__ = [
    "RUNS",
    "asking",
    "bill",
    "bundle_folder",
    "compress",
    "entries",
    "export",
    "export_bundle",
    "export_kserve",
    "export_ledger",
    "formats",
    "hardware",
    "init",
    "models",
    "open_ledger",
    "plan",
    "predict",
    "report",
    "run",
    "run_of",
    "scale",
    "schema",
    "serve",
    "show",
    "silent",
    "steer",
    "tune",
]

# a cell of a notebook that ends in a plan or a run shows it
register()
