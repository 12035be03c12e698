"""Extractive question: a question that one sentence of the passage answers in its own words."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.text.questions import questions


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for one in drawn(questions(document), rng):
        passage = one.passage
        fields = {"passage": passage.text, "question": one.question, "sentence": one.sentence}
        yield Example(fields, one.answer, passage.start, passage.end)


# Of one group with its inverse, `question_writing`, and with what asks the same questions of the wrong passage.
FAMILY = Family("extractive_question", group="question", kind="text", mine=mine, extractive=True)
