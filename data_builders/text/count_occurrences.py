"""Count occurrences: how many times a word stands in a passage."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries
from data_builders.text.prose import is_plain
from instructrec.core.segmentation import words


@lru_cache(maxsize=64)
def counted(text: str) -> dict[str, int]:
    """How often each word of four letters or more stands in a text.

    Left out are those that are part of other words, and those that stand there with a capital as well.
    """
    folded = text.lower()
    counts = Counter(words(folded))
    return {
        word: n
        for word, n in counts.items()
        if len(word) >= 4 and word.isalpha() and folded.count(word) == text.count(word) == n
    }


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        if not is_plain(passage.text):
            continue
        by_count: dict[int, list[str]] = {}
        for word, n in counted(passage.text).items():
            if n <= 6:
                by_count.setdefault(n, []).append(word)
        if len(by_count) < 2:
            continue
        number = rng.choice(sorted(by_count))
        fields = {"passage": passage.text, "word": rng.choice(by_count[number])}
        yield Example(fields, str(number), passage.start, passage.end)


# A near twin of `count_words`: something is counted in the text.
FAMILY = Family("count_occurrences", group="counting", kind="text", mine=mine, computed=True)
