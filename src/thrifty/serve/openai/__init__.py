"""OpenAI's protocol for language models: completions, chat completions, both streamed too, and the list of models.

Source: OpenAI's API reference of completions, chat and models, and what its Python client reads. `GET /v1/models` is
this protocol's; paths below it are TensorFlow Serving's.
"""

from __future__ import annotations

from thrifty.serve.openai.replies import error_reply
from thrifty.serve.openai.routes import OpenAI, owns

__all__ = ["OpenAI", "error_reply", "owns"]
