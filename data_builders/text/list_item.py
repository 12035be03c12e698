"""List item: the item of a list at a given place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.lists import lists


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(lists(document), rng):
        for i in islice(drawn(range(len(found.items)), rng), 2):
            yield Example({"list": found.text, "number": str(i + 1)}, found.items[i], found.start, found.end)


# Held out together: all read one list and copy from it.
FAMILY = Family("list_item", group="lists", kind="text", mine=mine, extractive=True)
