"""Open Inference Protocol, version 2: health, metadata, infer and a repository, by REST and by gRPC.

An image comes as ``image`` BYTES [N], whole image files, or as ``pixels`` UINT8 [N, H, W, C]; a recording as ``sound``
BYTES [N], whole files; a classifier of texts takes ``text``, a language model ``prompt``, both BYTES [N]; what learned
from a table takes ``row`` BYTES [N], the JSON of cells by their columns, or a tensor for each column: FP64 [N] for
numbers, NaN where a cell is empty, BYTES [N] for the others, empty text likewise. In JSON files are base64 text.

A number that is none (NaN, infinity) is an error in JSON, which cannot say it, and passes in binary tensors. Error
texts are Triton's as far as it has them.
"""

from thrifty.serve.oip.rest import HEAD_LENGTH, is_light
from thrifty.serve.oip.routes import ask_for, look_up, owns, work_for

__all__ = ["HEAD_LENGTH", "ask_for", "is_light", "look_up", "owns", "work_for"]
