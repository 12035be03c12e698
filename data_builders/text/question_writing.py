"""Question writing: the question that a given answer from the passage answers; its first word is given."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.text.questions import questions
from instructrec.core.segmentation import count_words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for one in drawn(questions(document), rng):
        passage = one.passage
        if one.kind == "Who or what":  # not how anyone would ask
            continue
        # Without the sentence, its beginning and its length, too many questions would be right.
        fields = {
            "passage": passage.text,
            "sentence": one.sentence,
            "given": one.answer,
            "first": one.kind,
            "length": str(count_words(one.question)),
        }
        yield Example(fields, one.question, passage.start, passage.end)


# Turns a statement round: the answer has words ("does", "how many") that the text lacks.
FAMILY = Family("question_writing", group="question", kind="text", mine=mine, computed=True)
