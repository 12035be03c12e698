"""Function to docstring: the one-sentence summary of a function from its code."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.code.functions import documented
from data_builders.documents import Document
from data_builders.families import Example, Family


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for function in documented(document, rng):
        yield Example({"code": function.source}, function.summary, function.start, function.end)


FAMILY = Family("function_to_docstring", group="programming", kind="code", mine=mine)
