"""List next: the item or step of a list that comes right after or right before another."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.lists import lists


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(lists(document), rng):
        i = rng.randrange(len(found.items) - 1)
        asked, answer, side = rng.choice(((i, i + 1, "after"), (i + 1, i, "before")))
        fields = {"list": found.text, "item": found.items[asked], "side": side}
        yield Example(fields, found.items[answer], found.start, found.end)


FAMILY = Family("list_next", group="lists", kind="text", mine=mine, extractive=True)
