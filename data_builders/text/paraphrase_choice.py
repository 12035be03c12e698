"""Paraphrase choice: which of four sentences says in other words what a sentence says, as its writer says."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.restatements import SAID_AGAIN, restated


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    return restated(document, rng, SAID_AGAIN, least=1)


# The answer is given a capital that it does not have in its document: a small letter would tell it from the others.
FAMILY = Family("paraphrase_choice", group="paraphrase", kind="text", mine=mine, computed=True)
