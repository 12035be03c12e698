"""List membership: whether a text is an item of a list; the wrong ones are items of the document's other lists."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.lists import lists


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    every = lists(document)
    if len(every) < 2:
        return
    for found in drawn(every, rng):
        other = rng.choice([theirs for theirs in every if theirs is not found])
        item = rng.choice(rng.choice((found.items, other.items)))
        inside = item in found.items
        # Certainly wrong: no item holds it or is held by it.
        folded = item.casefold().rstrip(".,;")
        if inside or not any(folded in own.casefold() or own.casefold() in folded for own in found.items):
            start, end = min(found.start, other.start), max(found.end, other.end)
            answer = "yes" if inside else "no"
            yield Example({"list": found.text, "item": item}, answer, start, end, ["yes", "no"])


# Held out together: both say something of a whole list that none of its words says.
FAMILY = Family("list_membership", group="list_facts", kind="text", mine=mine, computed=True)
