"""Synthesized: a sentence or more of the document, as the answer to an instruction that a model writes for it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries
from data_builders.text.causes import ANAPHORA
from data_builders.text.prose import is_sound
from instructrec.core.segmentation import count_words

LEAST_WORDS, MOST_WORDS = 10, 40
"""Words of a span: an answer that a small model can still learn."""


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        span: list[str] = []
        size = 0
        for sentence in rng.choice(passage.paragraphs):
            size += count_words(sentence)
            if size > MOST_WORDS or not is_sound(sentence, passage):
                break
            span.append(sentence)
        text = " ".join(span)
        # Numbers cannot be known from an instruction, and what leans on another sentence cannot be its whole answer.
        if count_words(text) >= LEAST_WORDS and not ANAPHORA.match(text) and not any(map(str.isdigit, text)):
            yield Example({}, text, passage.start, passage.end)


FAMILY = Family("synthesized", group="synthesis", kind="text", mine=mine)
