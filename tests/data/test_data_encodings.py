"""Encodings: what is told, what is believed, and what is not guessed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thrifty.data.encodings import LEAST_TELLING_BYTES, find_encoding

CHINESE = "我读完了这本书，觉得很有意思，想再读一遍。作者写得真好，故事也很感人。\n"
FRENCH = "Elle était déjà là, près de l'élève au café; où ça? Ils ont été très gênés à l'idée d'aller à la fête.\n"
POLISH = "Wszystkie szczęśliwe rodziny są do siebie podobne, każda nieszczęśliwa jest nieszczęśliwa na swój sposób.\n"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "gb18030"),
        (FRENCH, "cp1252"),
        (FRENCH, "latin-1"),
        (POLISH, "cp1250"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
        (JAPANESE, "cp932"),
        (JAPANESE, "euc_jp"),
    ],
)
def test_older_encodings_are_told(text: str, encoding: str) -> None:
    raw = (text * 3).encode(encoding)
    found = find_encoding(raw)
    assert raw.decode(found.name) == text * 3


# in UTF-16 a text that begins with NUL has the mark of UTF-32
@settings(max_examples=30)
@given(text=st.text(min_size=1).filter(lambda text: text[0] != "\0"))
def test_marks_and_utf8_are_believed(text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        raw = text.encode(encoding, "replace")
        found = find_encoding(raw)
        if encoding == "utf-8" and text.startswith("\ufeff"):
            continue
        assert raw[found.mark :].decode(found.name) == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (b"caf\xe9", "not UTF-8", " at byte 3"),
        (FRENCH.encode() * 3 + FRENCH.encode("latin-1"), "mixed encodings", ": 3 of 4 lines beyond ASCII are UTF-8"),
        (CHINESE.encode("gb18030") + FRENCH.encode(), "mixed encodings", ": 1 of 2 lines beyond ASCII are UTF-8"),
        (bytes(range(128, 256)) * 2 + b"\0", "not UTF-8", " at byte 0"),
        (b"\xff" * (LEAST_TELLING_BYTES - 1), "not UTF-8", " at byte 0"),
    ],
)
def test_what_is_not_guessed(raw: bytes, reason: str, detail: str) -> None:
    assert find_encoding(raw).problem == (reason, detail)
    assert not find_encoding(raw).name


def test_a_sample_may_end_within_a_character_and_the_job_may_name_it() -> None:
    raw = CHINESE.encode()[:-2]
    assert find_encoding(raw, whole=False).name == "utf-8"
    assert find_encoding(raw).name != "utf-8"
    assert find_encoding(b"caf\xe9", asked="latin-1").name == "latin-1"
    assert find_encoding("é".encode("utf-16"), asked="latin-1").name == "utf-16-le"
