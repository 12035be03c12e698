"""First sentence: which of the document's sentences opens a paragraph whose beginning was cut off."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.cohesion import apart, common_terms, outdone
from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.passages import is_clean, tries
from instructrec.core.segmentation import count_words

TRIES = 16


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    tried = list(islice(tries(document, rng), TRIES))
    if len(tried) < 4:
        return
    openings = [(p, max(p.paragraphs, key=len)) for p in tried]
    openings = [(p, s) for p, s in openings if len(s) > 2 and is_clean(s[0]) and 6 <= count_words(s[0]) <= 35]
    if len(openings) < 3:
        return
    common = common_terms([passage.text for passage in tried])
    for passage, sentences in openings:
        rest = " ".join(sentences[1:])
        others = [theirs[0] for other, theirs in openings if apart(other, passage)]
        options = with_options(sentences[0], outdone(others, sentences[0], rest, common), rng)
        if options is not None and len(options) >= 3:
            yield Example({"passage": rest}, sentences[0], passage.start, passage.end, options)


FAMILY = Family("first_sentence", group="coherence", kind="text", mine=mine)
