"""Word length: how many letters a word of the text has."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries
from data_builders.text.prose import vocabulary


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        by_length: dict[int, list[str]] = {}
        for word in vocabulary(passage.text):
            by_length.setdefault(len(word), []).append(word)
        if by_length:
            word = rng.choice(by_length[rng.choice(sorted(by_length))])
            yield Example({"word": word}, str(len(word)), passage.start, passage.end)


# A near twin of `count_letters`: both need the spelling of a single word.
FAMILY = Family("word_length", group="spelling", kind="text", mine=mine, computed=True)
