"""Most frequent word: which of four words occurs most often in a passage."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.passages import tries
from data_builders.text.count_occurrences import counted
from data_builders.text.prose import is_plain


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng, least=40):
        if not is_plain(passage.text):
            continue
        counts = {word: n for word, n in counted(passage.text).items() if word in passage.text}
        often = [word for word, n in counts.items() if n >= 3]
        if not often:
            continue
        word = rng.choice(often)
        # Twice less at least, so that one slip of the count does not change the answer.
        rarer = [other for other, n in counts.items() if n <= counts[word] - 2]
        options = with_options(word, sorted(rarer, key=lambda other: (-counts[other], other))[:8], rng)
        if options is not None and len(options) == 4:
            fields = {"passage": passage.text, "count": str(counts[word])}
            yield Example(fields, word, passage.start, passage.end, options)


# A near twin of `count_words`: something is counted in the text.
FAMILY = Family("most_frequent_word", group="counting", kind="text", mine=mine)
