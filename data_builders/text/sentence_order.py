"""Sentence order: numbered sentences in a random order; the answer is their order in the text."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.passages import is_clean, tries
from instructrec.core.segmentation import count_words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        sentences = max(passage.paragraphs, key=len)[:4]
        if len(set(sentences)) < 3 or not all(is_clean(s) and 4 <= count_words(s) <= 40 for s in sentences):
            continue
        order = shuffled(range(len(sentences)), rng)
        if order == sorted(order):
            order.reverse()
        shown = "\n".join(f"{number}. {sentences[i]}" for number, i in enumerate(order, start=1))
        answer = ", ".join(str(order.index(i) + 1) for i in range(len(sentences)))
        yield Example({"sentences": shown, "count": str(len(sentences))}, answer, passage.start, passage.end)


FAMILY = Family("sentence_order", group="coherence", kind="text", mine=mine, computed=True)
