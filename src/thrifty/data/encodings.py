"""How bytes spell text: by their mark, as UTF-8, or in an older encoding where enough of it is there to tell."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

UTF8 = "utf-8"
# the longer marks first: that of UTF-16 begins that of UTF-32
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# what texts were written in before UTF-8, by script; a guess among few is a better one
_OLDER = (
    *("gb18030", "big5", "cp932", "euc_jp", "cp949", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255"),
    *("cp1256", "koi8_r"),
)
_COMMONEST = "cp1252"
SAMPLE_BYTES = 1 << 20
# fewer bytes over 127 tell no encoding from another
LEAST_TELLING_BYTES = 24
# of charset-normalizer's measure, in percent
_MOST_CHAOS = 10.0
# in text of another encoding a line of few characters may look like UTF-8 by chance
_BY_CHANCE = 0.01
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Encoding:
    """What a text is written in.

    Attributes:
        name: as Python's codecs call it; empty where it is not known.
        mark: bytes that stand before the text and are none of it.
        problem: why it is not known, as reason and detail of a reject.
    """

    name: str
    mark: int = 0
    problem: tuple[str, str] = ("", "")


def find_encoding(sample: bytes, *, whole: bool = True, asked: str | None = None) -> Encoding:
    """Tell what a text is written in from its beginning.

    A byte-order mark is believed; else it is UTF-8 where every byte fits; else, where no line looks like UTF-8 and
    there are some bytes to go by, the likeliest of older encodings (by charset-normalizer). Text in which some lines
    are UTF-8 and others are not is in mixed encodings: it is not guessed.

    Args:
        sample: the first bytes; `SAMPLE_BYTES` of them are looked at.
        whole: whether the sample is all there is, so that it does not end within a character.
        asked: the encoding that the job names; taken where no mark says otherwise.

    >>> find_encoding("größer".encode("utf-16")).name, find_encoding("größer".encode()).name
    ('utf-16-le', 'utf-8')
    >>> find_encoding("größer".encode("latin-1")).problem
    ('not UTF-8', ' at byte 2')
    """
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return Encoding(name, len(mark))
    if asked is not None:
        return Encoding(asked)
    whole, sample = whole and len(sample) <= SAMPLE_BYTES, sample[:SAMPLE_BYTES]
    place = first_bad_byte(sample, whole=whole)
    if place is None:
        return Encoding(UTF8)
    bad = ("not UTF-8", f" at byte {place}")
    lines = [line for line in sample.splitlines() if _BEYOND_ASCII.search(line)]
    if not whole:
        lines = lines[:-1]
    as_utf8 = sum(first_bad_byte(line, whole=True) is None for line in lines)
    if as_utf8 > _BY_CHANCE * len(lines):
        return Encoding("", 0, ("mixed encodings", f": {as_utf8:,} of {len(lines):,} lines beyond ASCII are UTF-8"))
    if len(_BEYOND_ASCII.findall(sample)) < LEAST_TELLING_BYTES or b"\0" in sample:
        return Encoding("", 0, bad)
    return Encoding(found) if (found := _likeliest(sample)) else Encoding("", 0, bad)


def first_bad_byte(raw: bytes, *, whole: bool) -> int | None:
    """Return the place of the first byte that UTF-8 does not have there; None where all of them fit."""
    try:
        codecs.utf_8_decode(raw, "strict", whole)
    except UnicodeDecodeError as error:
        return error.start
    return None


def _likeliest(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    # lines are cut out whole, lest the sample end within a character
    matches = from_bytes(sample[: sample.rfind(b"\n") + 1] or sample, cp_isolation=list(_OLDER))
    best = matches.best()
    if best is None or best.percent_chaos > _MOST_CHAOS:
        return ""
    for match in matches:
        # the accents of western Europe stand at the same places as others of the east: the commoner is meant
        as_good = match.percent_chaos <= best.percent_chaos and match.percent_coherence + 10 >= best.percent_coherence
        if match.encoding == _COMMONEST and as_good:
            return _COMMONEST
    return str(best.encoding)
