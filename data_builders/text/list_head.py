"""List head: the first or the last items of a list, in their order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.lists import lists
from instructrec.core.segmentation import count_words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(lists(document), rng):
        size = rng.randint(2, min(4, len(found.items) - 1))
        end, items = rng.choice((("first", found.items[:size]), ("last", found.items[-size:])))
        if sum(map(count_words, items)) <= 45 and "; " not in " ".join(items):
            fields = {"list": found.text, "number": str(size), "end": end}
            yield Example(fields, "\n".join(items), found.start, found.end)


FAMILY = Family("list_head", group="lists", kind="text", mine=mine, extractive=True)
