"""Continuation: which of four sentences of the same document comes next."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.passages import is_clean, passages, tries
from instructrec.core.segmentation import count_words


def _candidate(sentence: str) -> bool:
    return is_clean(sentence) and 5 <= count_words(sentence) <= 35


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        sentences = passage.sentences
        if len(sentences) < 3 or not _candidate(sentences[-1]):
            continue
        # Distractors follow the first sentence of another passage, so that none opens a paragraph.
        others = (p.sentences for p in islice(drawn(passages(document), rng), 8) if p is not passage)
        later = (rng.choice(theirs[1:]) for theirs in others if len(theirs) > 1)
        distractors = list(islice(filter(_candidate, later), 3))
        options = with_options(sentences[-1], distractors, rng)
        if options is not None and len(options) >= 3:
            fields = {"passage": " ".join(sentences[:-1])}
            yield Example(fields, sentences[-1], passage.start, passage.end, options)


FAMILY = Family("continuation", group="coherence", kind="text", mine=mine)
