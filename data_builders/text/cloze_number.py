"""Cloze number: the number, year or version left out of a quotation from the passage."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.cloze import gaps

# Between spaces or before punctuation: a part of an address or a date would hide the rest from the privacy gate.
_NUMBER = re.compile(r"(?<= )\d+(?:[.,]\d+)*(?=[ ,;]|[.]$|[.] )")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    return gaps(document, rng, _NUMBER)


FAMILY = Family("cloze_number", group="infilling", kind="text", mine=mine, extractive=True)
