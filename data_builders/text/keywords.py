"""A sentence as its keywords: all but the small words that follow from the rest. English."""

from __future__ import annotations

import re

from data_builders.text.prose import is_simple
from instructrec.core.segmentation import words

FUNCTION_WORDS = frozenset(
    words("a an the of in on at to for with from by as and that which is are be being has have do does")
)
"""What follows from the rest of a sentence. Pronouns, negations, comparisons, times and moods do not."""

_FINITE = re.compile(
    r"\b(?:is|are|was|were|has|have|had|do|does|did|can|cannot|could|will|would|may|might|must|should)\b"
)
_PARTS = re.compile(r"[:;()]")
LEAST, MOST = 4, 16


def keywords(sentence: str) -> list[str] | None:
    """The keywords of a sentence in their order; null where they would not determine it.

    Every word outside `FUNCTION_WORDS` is one. There must be a finite verb, and the keywords must be distinct, at least
    three fifths of the words, and not all of them.
    """
    if not is_simple(sentence) or _PARTS.search(sentence) or not _FINITE.search(sentence):
        return None
    tokens = words(sentence)
    found = [token for token in tokens if token.lower() not in FUNCTION_WORDS]
    folded = {token.lower() for token in found}
    enough = len(tokens) * 3 <= len(found) * 5 and len(tokens) - len(found) >= 2
    return found if enough and LEAST <= len(found) == len(folded) <= MOST else None
