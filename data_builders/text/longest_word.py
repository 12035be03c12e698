"""Longest word: the only word of its length in a sentence that has none longer."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import is_simple, plain_sentences
from instructrec.core.segmentation import words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 6, 25):
        if not is_simple(sentence):
            continue
        first, second = sorted(words(sentence), key=len, reverse=True)[:2]
        if len(first) >= len(second) + 2 and first.lower() != second.lower():
            yield Example({"sentence": sentence}, first, passage.start, passage.end)


FAMILY = Family("longest_word", group="word_search", kind="text", mine=mine, extractive=True)
