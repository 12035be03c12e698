"""Field selection: some fields of the block that opens a document, as a JSON object or as lines."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.header import header_of, is_open
from instructrec.core.segmentation import count_words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    header = header_of(document)
    open_names = [name for name, value in header.fields.items() if is_open(value)] if header else []
    if header is None or len(open_names) < 4:
        return
    for size in (2, 3):
        names = shuffled(open_names, rng)[:size]
        answer = "\n".join(f"{name}: {header.fields[name]}" for name in names)
        if count_words(answer) <= 40:
            yield Example({"header": header.text, "names": ", ".join(names)}, answer, 0, header.end)


FAMILY = Family("field_select", group="fields", kind="text", mine=mine, extractive=True)
