"""Count words: how many words a short sentence has, where all ways to count agree."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import is_simple, plain_sentences


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 4, 14):
        if is_simple(sentence):
            yield Example({"sentence": sentence}, str(len(sentence.split())), passage.start, passage.end)


FAMILY = Family("count_words", group="counting", kind="text", mine=mine, computed=True)
