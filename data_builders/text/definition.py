"""Definition: what a term is, in the words of a passage or glossary that defines it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.text.definitions import definitions


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(definitions(document), rng):
        yield Example({"text": found.text, "term": found.term}, found.meaning, found.start, found.end)


FAMILY = Family("definition", group="definition", kind="text", mine=mine, extractive=True)
