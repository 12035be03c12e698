"""Continuation: which of four sentences of the same document comes next."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled, with_options
from data_builders.passages import is_clean, passage_sentences, passages
from instructrec.core.segmentation import words


def _candidate(sentence: str) -> bool:
    return is_clean(sentence) and 5 <= len(words(sentence)) <= 35


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = [(p, passage_sentences(p, document.language)) for p in passages(document)]
    for passage, sentences in shuffled(found, rng):
        if len(sentences) < 3 or not _candidate(sentences[-1]):
            continue
        # Distractors follow the first sentence of another passage, so that none opens a paragraph.
        distractors = [s for p, others in found if p is not passage for s in others[1:] if _candidate(s)]
        options = with_options(sentences[-1], distractors, rng)
        if options is not None and len(options) >= 3:
            fields = {"passage": " ".join(sentences[:-1])}
            yield Example(fields, sentences[-1], passage.start, passage.end, options)


FAMILY = Family("continuation", group="coherence", kind="text", mine=mine)
