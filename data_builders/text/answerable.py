"""Answerable: whether a passage answers a question."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.text.questions import questions
from data_builders.text.unanswerable import silent


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for one in drawn(questions(document), rng):
        other = silent(one, document, rng)
        if other is None:
            continue
        known = rng.random() < 0.5
        passage = one.passage if known else other
        fields = {"passage": passage.text, "question": one.question}
        yield Example(fields, "yes" if known else "no", passage.start, passage.end, ["yes", "no"])


FAMILY = Family("answerable", group="question", kind="text", mine=mine, computed=True)
