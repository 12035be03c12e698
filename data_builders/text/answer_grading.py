"""Answer grading: whether a proposed answer to a gap question about the passage is right."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.gap_question import GAP, gaps

LABELS = ["yes", "no"]


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence, gap, others in gaps(document, rng):
        question = sentence[: gap.start()] + GAP + sentence[gap.end() :]
        label = rng.choice(LABELS)
        # The passage shows the sentence whole, so that no other word can be right.
        proposed = gap[0] if label == "yes" else rng.choice(others[:3])
        fields = {"passage": passage.text, "question": question, "proposed": proposed}
        yield Example(fields, label, passage.start, passage.end, LABELS)


# Made of the same questions as `gap_question`, but a judgement: no twin of it.
FAMILY = Family("answer_grading", group="grading", kind="text", mine=mine, computed=True)
