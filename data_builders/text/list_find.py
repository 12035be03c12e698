"""List find: the one item of a list that mentions a word."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.lists import lists
from instructrec.core.segmentation import count_words

# Words between spaces, no part of code or of an address.
_WORD = re.compile(r"(?<= )[^\W\d_]{5,}(?=[ ,.;]|$)")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for found in drawn(lists(document), rng):
        item = rng.choice(found.items)
        words = _WORD.findall(item)
        if not words or count_words(item) < 4:
            continue
        word = rng.choice(words)
        # A word that is part of another item's word would make two right answers of one.
        if found.text.casefold().count(word.casefold()[: max(5, len(word) - 2)]) == 1:
            yield Example({"list": found.text, "word": word}, item, found.start, found.end)


FAMILY = Family("list_find", group="lists", kind="text", mine=mine, extractive=True)
