"""Summary: a text in fewer words, as a second field of its record has it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.versions import rewritten


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.summary:
        yield from rewritten(document, document.summary, most=250, shortest=0.05, longest=0.5)


OFF = "how a summary is put is not determined by its text and a few of its words (neither reader accepted one of three)"
# Computed, because the content of a record is its text alone.
FAMILY = Family("summary", group="summary", kind="text", mine=mine, computed=True, off=OFF)
