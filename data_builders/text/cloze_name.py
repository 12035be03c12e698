"""Cloze name: the name or piece of code left out of a quotation from the passage."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.cloze import gaps

# Several capitalised words within a sentence, a word with inner capitals, or what stands between backquotes.
_NAME = re.compile(
    r"(?<=[a-z,] )[A-Z][a-z]+(?: [A-Z][a-z]+)+(?=[ ,;)]|[.]$)|(?<= )[A-Z][a-z]+[A-Z]\w+(?=[ ,;)]|[.]$)|"
    r"(?<=`)[A-Za-z_][\w.]+(?:\(\))?(?=`)"
)


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    return gaps(document, rng, _NAME)


FAMILY = Family("cloze_name", group="infilling", kind="text", mine=mine, extractive=True)
