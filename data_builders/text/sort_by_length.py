"""Sort by length: words of a passage, all of different lengths, from the shortest to the longest."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.passages import tries
from data_builders.text.prose import is_plain
from instructrec.core.segmentation import words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        if not is_plain(passage.text):
            continue
        by_length = {
            len(word): word for word in shuffled(words(passage.text), rng) if word.isalpha() and word.islower()
        }
        if len(by_length) < 6:
            continue
        ordered = [by_length[length] for length in sorted(rng.sample(sorted(by_length), rng.randint(3, 5)))]
        chosen = shuffled(ordered, rng)
        if chosen not in (ordered, ordered[::-1]):
            yield Example({"words": ", ".join(chosen)}, "\n".join(ordered), passage.start, passage.end)


# A near twin of `sort_words`: another key.
FAMILY = Family("sort_by_length", group="sorting", kind="text", mine=mine)
