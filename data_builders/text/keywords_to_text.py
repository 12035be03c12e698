"""Keywords to text: a sentence from all its words but the small ones, given in their order (in English)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.keywords import keywords
from data_builders.text.prose import plain_sentences
from instructrec.core.segmentation import words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.language != "en":
        return
    for passage, sentence in plain_sentences(document, rng, 8, 25):
        if found := keywords(sentence):
            fields = {"keywords": ", ".join(found), "length": str(len(words(sentence)))}
            yield Example(fields, sentence, passage.start, passage.end)


FAMILY = Family("keywords_to_text", group="realisation", kind="text", mine=mine)
