"""Odd sentence out: a sentence of another section was put into a paragraph; which one does not belong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.cohesion import apart, common_terms, terms
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.passages import Passage, is_clean, tries
from instructrec.core.segmentation import count_words, words

TRIES = 16


def _paragraph(passage: Passage) -> list[str]:
    sentences = max(passage.paragraphs, key=len)
    return sentences if 3 <= len(sentences) <= 5 and all(map(is_clean, sentences)) else []


def _names(sentence: str) -> set[str]:
    """The words with a capital, which may be shorter than terms; the first has one anyway."""
    return {word for word in words(sentence)[1:] if not word.islower() and not word.isdigit()}


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    tried = list(islice(tries(document, rng), TRIES))
    common = common_terms([passage.text for passage in tried])
    whole = [(passage, sentences) for passage in tried if (sentences := _paragraph(passage))]
    for passage, sentences in whole:
        own = [terms(sentence) for sentence in sentences]
        # Every sentence of the paragraph is tied to the others of it, and the odd one to none.
        rest = [set().union(*own[:i], *own[i + 1 :]) - common for i in range(len(own))]
        if any(len(a & b) < 2 for a, b in zip(own, rest, strict=True)):
            continue
        tied = set().union(*own)
        for other, theirs in islice(drawn(whole, rng), 6):
            odd = rng.choice(theirs)
            theme = terms(odd)
            # It speaks plainly of something else.
            if not apart(other, passage) or len(theme - common) < 4 or theme & tied or count_words(odd) > 35:
                continue
            if any(_names(odd) & _names(sentence) for sentence in sentences):
                continue
            options = list(sentences)
            options.insert(rng.randint(1, len(sentences)), odd)
            start, end = min(passage.start, other.start), max(passage.end, other.end)
            yield Example({"count": str(len(options))}, odd, start, end, options)
            break


FAMILY = Family("odd_sentence_out", group="coherence", kind="text", mine=mine)
