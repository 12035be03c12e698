"""Defined term: which term a passage or glossary defines with these words; the inverse of `definition`."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.text.definitions import definitions


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(definitions(document), rng):
        yield Example({"text": found.text, "meaning": found.meaning}, found.term, found.start, found.end)


FAMILY = Family("defined_term", group="definition", kind="text", mine=mine, extractive=True)
