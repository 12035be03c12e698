"""Effect: what follows from a cause, in the words of the passage; the inverse of `cause`."""

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
        fields = {"passage": passage.text, "cause": decapitalised(found.cause, passage.text)}
        yield Example(fields, found.effect, passage.start, passage.end)


FAMILY = Family(
    "effect",
    group="causality",
    kind="text",
    mine=mine,
    extractive=True,
    off="two readers accepted 17 of 20 rows: effects run on into another reason, or their passage into code.",
)
