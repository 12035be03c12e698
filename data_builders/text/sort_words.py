"""Sort words: words of a passage in alphabetical order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries
from data_builders.text.prose import vocabulary


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        # The order of letters beyond ASCII depends on the language.
        found = [word for word in vocabulary(passage.text) if word.isascii()]
        if len(found) < 7:
            continue
        chosen = rng.sample(found, rng.randint(3, 7))
        ordered = sorted(chosen)
        if chosen not in (ordered, ordered[::-1]):
            yield Example({"words": ", ".join(chosen)}, "\n".join(ordered), passage.start, passage.end)


FAMILY = Family("sort_words", group="sorting", kind="text", mine=mine)
