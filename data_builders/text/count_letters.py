"""Count letters: how often a letter stands in a word of the text."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries
from data_builders.text.prose import vocabulary


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        found = vocabulary(passage.text)
        repeating = [word for word in found if len(set(word)) < len(word)]
        if not repeating:
            continue
        word = rng.choice(repeating)
        by_count: dict[int, list[str]] = {}
        for letter in sorted({*word, *rng.choice(found)}):
            by_count.setdefault(word.count(letter), []).append(letter)
        fields = {"word": word, "letter": rng.choice(by_count[rng.choice(sorted(by_count))])}
        yield Example(fields, str(word.count(fields["letter"])), passage.start, passage.end)


FAMILY = Family("count_letters", group="spelling", kind="text", mine=mine, computed=True)
