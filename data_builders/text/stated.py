"""Stated: whether a passage says a sentence, which is one of its own or one of its own with a contradicting change."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.statements import candidates, changed


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in candidates(document, rng):
        # Sentences that cannot be changed would only ever be true.
        version = next(changed(sentence, passage.text, rng), None)
        if version is not None:
            true = rng.random() < 0.5
            fields = {"passage": passage.text, "statement": sentence if true else version}
            yield Example(fields, "yes" if true else "no", passage.start, passage.end, ["yes", "no"])


FAMILY = Family("stated", group="statement", kind="text", mine=mine, computed=True)
