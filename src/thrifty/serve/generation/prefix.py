"""`names_of`: what the begins of a prompt are called, so that equal begins have one name and others never do."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence


def names_of(prompt: Sequence[int], size: int, salt: str = "") -> list[bytes]:
    """Name a prompt's first ``size`` tokens, its first two times as many, and so on; none ends with its last token.

    A name is the SHA-256 of the name before it and of the tokens that come after that: whoever has the last name of two
    prompts has all their tokens up to there alike. The last token is left out, for it has to be read for what follows.

    Args:
        prompt: its tokens.
        size: tokens between two names.
        salt: prompts of other salts have other names.

    >>> one, other = names_of([5, 6, 7, 8, 9], 2), names_of([5, 6, 1, 1], 2)
    >>> len(one), len(other), one[0] == other[0], one[0] == names_of([5, 6, 7], 2, "mine")[0]
    (2, 1, True, False)
    """
    names: list[bytes] = []
    before = hashlib.sha256(salt.encode("utf-8", "surrogatepass")).digest()
    for begin in range(0, (len(prompt) - 1) // size * size, size):
        before = hashlib.sha256(before + array("q", prompt[begin : begin + size]).tobytes()).digest()
        names.append(before)
    return names
