"""Stated choice: which of several versions of a sentence is the one that stands in the passage."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.text.statements import candidates, changed


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in candidates(document, rng):
        versions = list(changed(sentence, passage.text, rng))
        options = with_options(sentence, versions, rng)
        if options is not None:
            yield Example({"passage": passage.text}, sentence, passage.start, passage.end, options)


FAMILY = Family("stated_choice", group="statement", kind="text", mine=mine)
