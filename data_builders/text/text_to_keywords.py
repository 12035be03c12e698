"""Text to keywords: the words of a sentence in their order, without the small words that are named (in English)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.keywords import FUNCTION_WORDS, keywords
from data_builders.text.prose import plain_sentences
from instructrec.core.segmentation import words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.language != "en":
        return
    for passage, sentence in plain_sentences(document, rng, 7, 25):
        found = keywords(sentence)
        if found is not None:
            small = dict.fromkeys(word for word in words(sentence.lower()) if word in FUNCTION_WORDS)
            fields = {"sentence": sentence, "small": ", ".join(sorted(small))}
            yield Example(fields, ", ".join(found), passage.start, passage.end)


# The inverse of `keywords_to_text`.
FAMILY = Family("text_to_keywords", group="realisation", kind="text", mine=mine)
