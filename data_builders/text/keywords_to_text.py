"""Keywords to text: a sentence from its content words, given in their order."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import is_clean, tries
from instructrec.core.segmentation import words

_DIGIT = re.compile(r"\d")
_KEYWORD = re.compile(r"[a-z][a-z-]{4,}$", re.I)


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        sentence = rng.choice(passage.sentences)
        # A number cannot be told from keywords.
        if not is_clean(sentence) or _DIGIT.search(sentence) or not 8 <= len(tokens := words(sentence)) <= 25:
            continue
        keywords = list(dict.fromkeys(t for t in tokens if len(t) >= 5 and _KEYWORD.match(t)))
        # Enough of the sentence is given that the answer is determined, not guessed.
        if 4 <= len(keywords) <= 10 and len(keywords) * 5 >= len(tokens) * 2:
            fields = {"keywords": ", ".join(keywords), "length": str(len(tokens))}
            yield Example(fields, sentence, passage.start, passage.end)


FAMILY = Family("keywords_to_text", group="realisation", kind="text", mine=mine)
