"""Unanswerable: a question, and the passage that answers it or another one of the document that does not."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.passages import Passage, passages
from data_builders.text.questions import Asked, questions
from instructrec.core.segmentation import words

NOT_STATED = "not stated"


def silent(one: Asked, document: Document, rng: random.Random) -> Passage | None:
    """A passage of the document that holds neither the answer nor most of what the question asks about, or null."""
    content = {word for word in words(one.question.lower()) if len(word) > 4}
    if len(content) < 3:
        return None
    for passage in islice(drawn(passages(document), rng), 8):
        text = passage.text.lower()
        if one.answer.lower() not in text and 2 * sum(word in text for word in content) <= len(content):
            return passage
    return None


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for one in drawn(questions(document), rng):
        other = silent(one, document, rng)
        if other is None:
            continue
        known = rng.random() < 0.5
        passage, answer = (one.passage, one.answer) if known else (other, NOT_STATED)
        yield Example({"passage": passage.text, "question": one.question}, answer, passage.start, passage.end)


FAMILY = Family("unanswerable", group="question", kind="text", mine=mine, extractive=True, computed=True)
