"""Title: the page's first heading, from the passage below it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import is_name, passages
from instructrec.core.segmentation import words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    first = document.blocks[0] if document.blocks else None
    if first is None or first.kind != "heading" or first.level != 1 or not is_name(first.text):
        return
    for passage in passages(document):
        # The length is stated because a passage alone does not determine how long its title is.
        fields = {"passage": passage.text, "length": str(len(words(first.text)))}
        yield Example(fields, first.text, first.start, passage.end)
        return


FAMILY = Family("title", group="naming", kind="text", mine=mine)
