"""Summary choice: which of four sentences sums up a passage, as its writer says ("In short, …")."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.restatements import SUMMED_UP, restated


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    return restated(document, rng, SUMMED_UP, least=2)


# The answer is given a capital, as in `paraphrase_choice`.
FAMILY = Family("summary_choice", group="summary", kind="text", mine=mine, computed=True)
