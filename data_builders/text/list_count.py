"""List count: how many items a list has."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.lists import lists


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(lists(document), rng):
        yield Example({"list": found.text}, str(len(found.items)), found.start, found.end)


FAMILY = Family("list_count", group="list_facts", kind="text", mine=mine, computed=True)
