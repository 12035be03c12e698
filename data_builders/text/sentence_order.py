"""Sentence order: numbered sentences in a random order; the answer is their order in the text (in English)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise

from data_builders.cohesion import terms
from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.passages import is_clean, tries
from instructrec.core.segmentation import count_words

# What a sentence begins with when it goes on from the one before, and from no other.
_GOES_ON = re.compile(
    r"(?:This(?! (?:PEP|book|chapter|document|module|page|section))|That|These|Those|"
    r"It(?! (?:is|was|would be|will be)\b|['’])|"
    r"Its|They|Their|Such|He|She|His|Her|However|Instead|Then|Therefore|Thus|Hence|Otherwise|Nevertheless|Consequently|"
    r"But|So|Yet|Both|Neither|Conversely|Afterwards|For (?:example|instance|this reason|these reasons)|"
    r"In (?:this|that|these|other words|contrast|such)|As a (?:result|consequence)|Because of (?:this|that)|"
    r"On the other hand|At (?:this|that)|With (?:this|that|these)|If (?:this|that|it|they|so|not)|"
    r"When (?:this|that|it|they)|After (?:this|that))\b"
)
_LEANS = re.compile(r"\b(?:also|another|other|such|th(?:is|ese|ose))\b")


def _chained(sentences: list[str]) -> int:
    """How many sentences from the first on hang together in one order only: each takes up what the one before it said.

    A sentence does so if it begins as if it went on and has a term that is new in the sentence before.
    """
    if len(sentences) < 3 or _GOES_ON.match(sentences[0]) or _LEANS.search(sentences[0]):
        return 0
    known: frozenset[str] = frozenset()
    for i, (before, sentence) in enumerate(pairwise(sentences), start=1):
        if not _GOES_ON.match(sentence) or (terms(before) - known).isdisjoint(terms(sentence)):
            return i
        known |= terms(before)
    return len(sentences)


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.language != "en":
        return
    for passage in tries(document, rng):
        sentences = max(passage.paragraphs, key=_chained)[:4]
        sentences = sentences[: _chained(sentences)]
        # Two that begin alike could change places.
        if len({s.split()[0] for s in sentences}) < max(3, len(sentences)) or " > " in passage.text:
            continue
        if not all(is_clean(s) and 4 <= count_words(s) <= 40 for s in sentences):
            continue
        order = shuffled(range(len(sentences)), rng)
        if order == sorted(order):
            order.reverse()
        shown = "\n".join(f"{number}. {sentences[i]}" for number, i in enumerate(order, start=1))
        answer = ", ".join(str(order.index(i) + 1) for i in range(len(sentences)))
        yield Example({"sentences": shown, "count": str(len(sentences))}, answer, passage.start, passage.end)


FAMILY = Family("sentence_order", group="coherence", kind="text", mine=mine, computed=True)
