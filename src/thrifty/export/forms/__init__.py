"""How bundles take raw input and what they answer with, by the kind of their data and their task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from thrifty.export.forms.form import Form, Signature, check_raw
from thrifty.export.forms.hidden import Hidden
from thrifty.export.forms.images import Images
from thrifty.export.forms.prompts import Prompts
from thrifty.export.forms.rows import Rows
from thrifty.export.forms.sounds import Sounds, Transcripts
from thrifty.export.forms.tags import Tags
from thrifty.export.forms.texts import Texts
from thrifty.spec import BundleInfo

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn

    from thrifty.export.engines import Computed

__all__ = ["FORMS", "Form", "Signature", "check_raw"]

# Each is made of what the bundle says, its model, and its tokenizer, where the kind has one.
FORMS: dict[tuple[str, str], Callable[[BundleInfo, nn.Module | Computed, Tokenizer | None], Form]] = {
    ("audio", "classify"): Sounds,
    ("audio", "transcribe"): Transcripts,
    ("image", "classify"): Images,
    ("language", "language"): Prompts,
    ("table", "classify"): Rows,
    ("table", "regress"): Rows,
    ("text", "classify"): Texts,
    ("text", "mask"): Hidden,
    ("text", "tag"): Tags,
}
