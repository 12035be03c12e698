"""Pros and cons: whether the page lists a remark among its pros or among its cons.

The headings are English.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.layout import Block
from data_builders.lists import ItemList, lists
from data_builders.passages import is_name
from data_builders.text.prose import is_plain
from instructrec.core.segmentation import count_words

LABELS = ["advantage", "disadvantage"]
_PROS = "pros, advantages, benefits, strengths, the good, upsides, what we liked, what i liked, likes"
_CONS = "cons, disadvantages, drawbacks, weaknesses, the bad, downsides, what we disliked, what i disliked, dislikes"
_SIDES = {name: label for label, names in zip(LABELS, (_PROS, _CONS), strict=True) for name in names.split(", ")}
LEAST_WORDS, MOST_WORDS = 4, 30


def _side(block: Block) -> str | None:
    """The label of the items below a heading or a line such as `**Pros:**`."""
    return _SIDES.get(block.text.strip("*_: ").casefold()) if len(block.text) <= 30 else None


def _sides(document: Document) -> Iterator[tuple[str, str, ItemList]]:
    """(subject, label, list): the subject is the nearest heading above that is not a side itself."""
    by_start = {found.start: found for found in lists(document)}
    subject, side = "", None
    for block in document.blocks:
        # A list begins with the line that introduces it, if that ends in a colon.
        side, before = _side(block), side
        found = by_start.get(block.start)
        label = side if found is not None and found.introduction else before
        if found is not None and label and subject:
            yield subject, label, found
        if block.kind == "heading" and side is None:
            subject = block.text if is_name(block.text) else ""


def _is_remark(item: str) -> bool:
    """Whether an item says something by itself: it asks nothing and nothing must follow it."""
    return (
        is_plain(item) and LEAST_WORDS <= count_words(item) <= MOST_WORDS and item[-1] not in ";,:" and "?" not in item
    )


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = list(_sides(document)) if any(_side(block) for block in document.blocks) else []
    sides = {
        label: [(subject, one, item) for subject, side, one in found if side == label for item in one.items]
        for label in LABELS
    }
    everywhere = Counter(item for side in sides.values() for _, _, item in side)
    for pair in islice(zip(*(drawn(sides[label], rng) for label in LABELS), strict=False), 12):
        for label, (subject, one, item) in zip(LABELS, pair, strict=True):
            if everywhere[item] == 1 and _is_remark(item):
                yield Example({"subject": subject, "remark": item}, label, one.start, one.end, LABELS)


FAMILY = Family("pros_and_cons", group="sentiment", kind="text", mine=mine, computed=True)
