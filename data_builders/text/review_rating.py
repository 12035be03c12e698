"""Review rating: whether a review is positive or negative, as its own number of stars says."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.layout import Section
from instructrec.core.segmentation import count_words

LABELS = ["positive", "negative"]
_RATING = re.compile(r"([★☆]{3,10})|\b(\d{1,2}(?:[.,]\d)?)\s?(?:/|out of)\s?(5|10)\b")
_SIGNS = ("★", "/5", "/ 5", "/10", "/ 10", "out of")
_SCORED = re.compile(r"[★☆]|\d\s?/\s?(?:5|10)\b|\bstars?\b", re.I)


def rating(text: str) -> float | None:
    """The share of the stars that a line gives, from 0 to 1; null if it is no line of a rating alone."""
    match = _RATING.search(text) if len(text) <= 40 else None
    if match is None or count_words(text) > 6:
        return None
    if match[1]:
        return match[1].count("★") / len(match[1]) if len(match[1]) in (5, 10) else None
    share = float(match[2].replace(",", ".")) / int(match[3])
    return share if share <= 1 else None


def _review(section: Section) -> tuple[float, str, int, int] | None:
    """Share of the stars, text without the line that gives them, and place."""
    rated = [(share, block) for block in section.body if (share := rating(block.text)) is not None]
    rest = [block for block in section.body if block.kind == "paragraph" and all(block is not b for _, b in rated)]
    text = "\n\n".join(block.text for block in rest)
    if len(rated) != 1 or not 12 <= count_words(text) <= 150 or _SCORED.search(text):
        return None
    blocks = [rated[0][1], *rest]
    return rated[0][0], text, min(block.start for block in blocks), max(block.end for block in blocks)


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if not any(sign in document.content for sign in _SIGNS):
        return
    for section in drawn(document.sections, rng):
        found = _review(section)
        # In between a review is both.
        if found is not None and not 0.4 < found[0] < 0.8:
            share, text, start, end = found
            yield Example({"review": text}, LABELS[share <= 0.4], start, end, LABELS)


FAMILY = Family("review_rating", group="sentiment", kind="text", mine=mine, computed=True)
