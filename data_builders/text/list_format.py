"""List format: headings or list items of the page, from one way to write a list into another."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.lists import lists
from data_builders.passages import is_name

_UNFIT = re.compile(r"[,;|`*_<>\[\]\\:\"]|\.\S|^\W|^\d")


def _fit(items: Sequence[str]) -> bool:
    """Whether no item holds what could be taken for a list's own marks."""
    return len(set(items)) == len(items) and all(
        len(item) <= 60 and is_name(item) and not _UNFIT.search(item) for item in items
    )


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = [([item.rstrip(" .") for item in one.items], one.start, one.end) for one in lists(document)]
    headings = [block for block in document.blocks if block.kind == "heading" and block.level > 1]
    for i in range(0, len(headings), 6):
        run = headings[i : i + rng.randint(3, 6)]
        found.append(([block.text for block in run], run[0].start, run[-1].end))
    for items, start, end in drawn(found, rng):
        if 3 <= len(items) <= 7 and _fit(items):
            yield Example({"items": " | ".join(items)}, "\n".join(items), start, end)


FAMILY = Family("list_format", group="formatting", kind="text", mine=mine, extractive=True)
