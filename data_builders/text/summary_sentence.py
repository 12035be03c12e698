"""Summary sentence: the sentence that shares most with the rest of the passage (gap sentence, PEGASUS, 2020)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.passages import is_clean, passage_sentences, passages
from instructrec.core.segmentation import words

LEAST_LEAD = 1.15
"""The best sentence must score this much above the second, else the passage does not determine the answer."""


def rouge1(a: Counter[str], b: Counter[str]) -> float:
    """ROUGE-1 F1 of two bags of words (Lin, 2004)."""
    common = (a & b).total()
    return 2 * common / (a.total() + b.total()) if common else 0.0


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in shuffled(list(passages(document, least=50)), rng):
        sentences = passage_sentences(passage, document.language)
        if not 3 <= len(sentences) <= 8:
            continue
        bags = [Counter(words(sentence.lower())) for sentence in sentences]
        everything = sum(bags, Counter())
        scores = [rouge1(bag, everything - bag) for bag in bags]
        best, second = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:2]
        answer = sentences[best]
        if is_clean(answer) and 6 <= bags[best].total() <= 40 and scores[best] >= LEAST_LEAD * scores[second]:
            yield Example({"passage": passage.text}, answer, passage.start, passage.end)


FAMILY = Family("summary_sentence", group="summary", kind="text", mine=mine, extractive=True)
