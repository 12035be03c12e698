"""Keywords to text: a sentence from its content words, given in their order."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.passages import TRIES, is_clean, passages
from instructrec.core.segmentation import words

_KEYWORD = re.compile(r"[a-z][a-z-]{4,}$", re.I)


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in shuffled(passages(document), rng)[:TRIES]:
        for sentence in shuffled(passage.sentences, rng)[:1]:
            tokens = words(sentence)
            keywords = list(dict.fromkeys(t for t in tokens if _KEYWORD.match(t)))
            if not is_clean(sentence) or not 8 <= len(tokens) <= 25 or not 4 <= len(keywords) <= 10:
                continue
            # Enough of the sentence is given that the answer is determined, not guessed.
            if len(keywords) * 5 < len(tokens) * 2:
                continue
            fields = {"keywords": ", ".join(keywords), "length": str(len(tokens))}
            yield Example(fields, sentence, passage.start, passage.end)


FAMILY = Family("keywords_to_text", group="realisation", kind="text", mine=mine)
