"""What holds a text together: the terms that its parts share (lexical cohesion; Hearst, TextTiling, 1997)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache

from data_builders.passages import Passage
from instructrec.core.segmentation import words

STEM = 6
"""Characters by which words are told apart, so that inflected forms count as one."""
_ASCII_STEM = re.compile(f"([a-z0-9]{{5,{STEM}}})[a-z0-9]*")
FAR = 4000
"""Characters from which two passages of one section count as apart."""


@lru_cache(maxsize=256)
def terms(text: str) -> frozenset[str]:
    """The stems of the longer words; of single characters in scripts without spaces."""
    if text.isascii():  # several times as fast as `words`
        return frozenset(_ASCII_STEM.findall(text.lower()))
    return frozenset(word[:STEM] for word in words(text.lower()) if len(word) > 4 or not word.isascii())


def common_terms(texts: Collection[str]) -> set[str]:
    """The terms of more than a quarter of the texts, and of more than two: they tell none of them apart."""
    holders: Counter[str] = Counter()
    for text in texts:
        holders.update(terms(text))
    return {term for term, n in holders.items() if n > max(2, len(texts) / 4)}


def outdone(others: Iterable[str], own: str, context: str, common: set[str], least: int = 2) -> list[str]:
    """Those of `others` that share less than half as many terms with `context` as `own` does.

    None of them if `own` itself shares fewer than `least`: then the context does not determine that it belongs there.
    """
    given = terms(context) - common
    shared = len(terms(own) & given)
    return [other for other in others if 2 * len(terms(other) & given) < shared] if shared >= least else []


def apart(one: Passage, other: Passage) -> bool:
    """Whether two passages stand in different sections, or far from each other in a long one."""
    return one.section is not other.section or abs(one.start - other.start) > FAR
