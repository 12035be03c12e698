"""Cause: why something is so, in the words of the passage."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.text.causes import causes
from data_builders.text.questions import decapitalised


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(causes(document), rng):
        passage = found.passage
        fields = {"passage": passage.text, "effect": decapitalised(found.effect, passage.text)}
        yield Example(fields, found.cause, passage.start, passage.end)


FAMILY = Family("cause", group="causality", kind="text", mine=mine, extractive=True)
