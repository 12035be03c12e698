"""Acronym expansion: what an abbreviation stands for, as the passage says itself."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.text.abbreviations import abbreviations


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(abbreviations(document), rng):
        passage = found.passage
        fields = {"passage": passage.text, "short": found.short}
        yield Example(fields, found.long, passage.start, passage.end)


FAMILY = Family("acronym_expansion", group="acronym", kind="text", mine=mine, extractive=True)
