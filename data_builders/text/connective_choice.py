"""Connective choice: which connective stood in a gap, where the others would relate the clauses in another way.

The connectives are English. Addition ("moreover") is never asked for: too often it fits beside the right one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise

from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.passages import is_clean, tries
from instructrec.core.segmentation import count_words

# Each connective and what certainly says something else in its place.
_OPENING = {
    "For example": ("Nevertheless", "Otherwise", "Until then"),
    "For instance": ("Nevertheless", "Otherwise", "Until then"),
    "However": ("For example", "In other words", "For this reason", "Likewise"),
    "Nevertheless": ("For example", "In other words", "For this reason", "Otherwise"),
    "Therefore": ("Nevertheless", "Otherwise", "On the other hand", "Until then"),
    "Consequently": ("Nevertheless", "Otherwise", "On the other hand", "Until then"),
    "As a result": ("Nevertheless", "Otherwise", "On the other hand", "Until then"),
    "Otherwise": ("For example", "In other words", "Likewise", "As a result"),
    "Instead": ("For example", "In other words", "Otherwise", "As a result"),
    "In other words": ("Nevertheless", "Otherwise", "Until then", "Instead"),
    "Similarly": ("Otherwise", "For this reason", "Nevertheless", "Until then"),
}
_INNER = {
    "because": ("although", "unless", "until", "so that"),
    "although": ("because", "unless", "until", "so that"),
    "even though": ("because", "unless", "until", "so that"),
    "unless": ("because", "although", "so that", "whereas"),
    "until": ("because", "although", "whereas"),
    "so that": ("although", "unless", "until", "whereas"),
    "even if": ("because", "so that", "until", "as soon as"),
    "whereas": ("because", "unless", "until", "so that"),
}
_OPENS = re.compile(rf"({'|'.join(_OPENING)}), ")
_JOINS = re.compile(rf" ({'|'.join(_INNER)}) (?!of |then\b|now\b)")
_BEFORE = re.compile(
    r"(?:\b(?:just|only|not|partly|mainly|even|especially|and|or|but|up|largely|simply|exactly)|[^a-z`),])$"
)


def _gap(before: str, sentence: str) -> re.Match[str] | None:
    """The connective that is to be left out: the sentence's first words, or the only one within it."""
    if opens := _OPENS.match(sentence):
        return opens if before and is_clean(before) else None
    joins = list(_JOINS.finditer(sentence))
    return joins[0] if len(joins) == 1 and not _BEFORE.search(sentence[: joins[0].start()]) else None


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        for sentences in passage.paragraphs:
            for before, sentence in pairwise(["", *sentences]):
                gap = _gap(before, sentence)
                if gap is None or not 8 <= count_words(sentence) <= 40 or not is_clean(sentence):
                    continue
                options = with_options(gap[1], (_OPENING | _INNER)[gap[1]], rng)
                text = f"{before} {sentence[: gap.start(1)]}____{sentence[gap.end(1) :]}".strip()
                if count_words(text) <= 90:
                    yield Example({"text": text}, gap[1], passage.start, passage.end, options)


FAMILY = Family("connective_choice", group="connective", kind="text", mine=mine)
