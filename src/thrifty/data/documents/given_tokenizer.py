"""A tokenizer that is given to a language model: read, its end token found, and tried on the text."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer

from thrifty.data.documents.tokenizer import END_TOKEN, safe
from thrifty.errors import DataError, nearest

# what ends a document in the files of GPT-2, Llama 1 to 3, Gemma, ours and others; the first that is there counts
ENDS = (
    "<|endoftext|>",
    "</s>",
    "<|end_of_text|>",
    "<eos>",
    "<|im_end|>",
    END_TOKEN,
    "[EOS]",
    "<|eos|>",
    "<end>",
    "[SEP]",
)
# texts that are tried, and characters of each
_TRIED, _TRIED_CHARACTERS = 200, 2000
# of the texts tried, more that do not come back are refused
_MOST_LOST = 0.5
_SHOWN = 60


def read_given(raw: bytes, name: str, end: str | None = None) -> tuple[Tokenizer, int]:
    """Read a ``tokenizer.json`` for texts to continue: without marks around a text, and with its end token's number.

    Args:
        raw: of the file.
        name: of the file, for errors.
        end: the token between documents; found among the tokens that the file marks as special when left out.

    Raises:
        DataError: it cannot be read, or which token ends a document is not told.
    """
    try:
        content = json.loads(raw.decode("utf-8"))
        # documents are told apart by the end token alone, and no text is cut or filled up
        content.update(post_processor=None, truncation=None, padding=None)
        tokenizer = Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises bare Exception for a file it cannot read
        raise DataError(
            f"tokenizer '{name}' cannot be read: {' '.join(str(error).split())[:200]}",
            mend="It is the tokenizer.json of the tokenizers library.",
        ) from error
    special = sorted(each.content for each in tokenizer.get_added_tokens_decoder().values() if each.special)
    found = end or next((each for each in ENDS if each in special), special[0] if len(special) == 1 else None)
    number = None if found is None else tokenizer.token_to_id(found)
    if number is None:
        known = ", ".join(special[:10]) or "none"
        says = f"has no token '{end}'" if end else "does not tell which token ends a document"
        raise DataError(
            f"tokenizer '{name}' {says}; its special ones: {known}",
            nearest=nearest(end, special) if end else "",
            mend="Set data.end to the one that does.",
        )
    return safe(tokenizer), number


def try_texts(tokenizer: Tokenizer, texts: Iterable[str], name: str) -> str:
    """Encode some texts and decode them; return a line on those that do not come back, empty where all do.

    A space that the tokenizer puts before a text does not count.

    Raises:
        DataError: half of them do not: what is written by its numbers would be another text.
    """
    tried, lost, first = 0, 0, ("", "")
    for text, _ in zip(texts, range(_TRIED), strict=False):
        part = text[:_TRIED_CHARACTERS]
        back = tokenizer.decode(tokenizer.encode(part, add_special_tokens=False).ids, skip_special_tokens=False)
        tried += 1
        if back.removeprefix(" ") != part.removeprefix(" "):
            lost += 1
            first = first if any(first) else _where(part, back)
    if not lost:
        return ""
    said = f"{lost:,} of {tried:,} texts tried do not come back from tokenizer '{name}' as they were"
    example = f"{first[0]!r} comes back as {first[1]!r}"
    if lost > _MOST_LOST * tried:
        raise DataError(f"{said}: {example}", mend="Take one that gives texts back, or leave out data.tokenizer.")
    return f"{said}: {example}"


def _where(text: str, back: str) -> tuple[str, str]:
    """What follows the first difference, with a little before it."""
    at = next((at for at, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    begin = max(0, at - _SHOWN // 3)
    return text[begin : begin + _SHOWN], back[begin : begin + _SHOWN]
