"""List sort: the items of a list in alphabetical order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.lists import lists
from instructrec.core.segmentation import count_words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(lists(document), rng):
        items = found.items[:8]
        # Plain letters first: how accents, signs and case sort is a matter of custom.
        keys = ["".join(c for c in item.casefold() if c.isalnum()) for item in items]
        if any(item.count("(") != item.count(")") or item.count("[") != item.count("]") for item in items):
            continue
        if max(map(count_words, items)) > 8 or not all(item.isascii() and item[0].isalpha() for item in items):
            continue
        order = sorted(range(len(items)), key=keys.__getitem__)
        # Where the first words alone decide, spaces and signs do not matter.
        first = [item.casefold().split()[0] for item in items]
        if len({word[:4] for word in first}) == len(first) and order != sorted(order) and "; " not in " ".join(items):
            fields = {"list": "\n".join(f"- {item}" for item in items)}
            yield Example(fields, "\n".join(items[i] for i in order), found.start, found.end)


FAMILY = Family("list_sort", group="sorting", kind="text", mine=mine, extractive=True)
