"""Field lookup: the value of a field in the block of `Name: value` lines that opens a document."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.header import header_of, is_open
from instructrec.core.segmentation import count_words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    header = header_of(document)
    if header is None:
        return
    for name, value in islice(drawn(list(header.fields.items()), rng), 4):
        if count_words(value) <= 40 and any(c.isalnum() for c in value) and is_open(value):
            yield Example({"header": header.text, "name": name}, value, 0, header.end)


# Held out together: both read the same block of fields.
FAMILY = Family("field_lookup", group="fields", kind="text", mine=mine, extractive=True)
