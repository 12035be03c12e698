"""Abbreviations that a passage expands itself: "Python Package Index (PyPI)" (Schwartz and Hearst, 2003)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document
from data_builders.passages import Passage, passages

_SHORT = re.compile(r"(?<=[\w.'’”\"`*] )\(([A-Z][A-Za-z&\-]{1,9})\)")
_BOUNDARY = re.compile(r"[.,;:!?()\[\]{}\"“”`<>]")
_INITIAL = re.compile(r"(?<![^\W_])[^\W_]")

_SMALL = frozenset(("a", "an", "and", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with"))


@dataclass(frozen=True, slots=True)
class Abbreviation:
    short: str
    long: str
    passage: Passage


def expansion(before: str, short: str) -> str | None:
    """The words at the end of `before` that `short` abbreviates, or null.

    Every capital of the short form must begin one of its words, the first of them the first, and there must be no more
    words than capitals, besides small ones such as "of".
    """
    words = _BOUNDARY.split(before)[-1].split()[-min(len(short) + 5, 2 * len(short)) :]
    capitals = [c.lower() for c in short if c.isupper()]
    # The shortest run of words whose initials hold the capitals in order.
    for first in range(len(words) - 1, -1, -1):
        if words[first][0].lower() != capitals[0]:
            continue
        initials = iter(_INITIAL.findall(" ".join(words[first:]).lower()))
        if all(c in initials for c in capitals):
            named = [word for word in words[first:] if word.lower() not in _SMALL]
            return " ".join(words[first:]) if len(named) <= len(capitals) else None
    return None


def _found(passage: Passage) -> Iterator[Abbreviation]:
    for match in _SHORT.finditer(passage.text):
        short = match[1]
        if sum(map(str.isupper, short)) < 2:
            continue
        long = expansion(passage.text[: match.start()].rstrip(), short)
        if long is not None and len(long.split()) > 1 and short.lower() not in long.lower():
            yield Abbreviation(short, long, passage)


@lru_cache(maxsize=1)
def abbreviations(document: Document) -> list[Abbreviation]:
    """The abbreviations of a document, each once."""
    once: dict[str, Abbreviation] = {}
    for passage in passages(document):
        if "(" in passage.text:
            for one in _found(passage):
                once.setdefault(one.short, one)
    return list(once.values())
