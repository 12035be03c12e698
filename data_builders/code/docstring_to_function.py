"""Docstring to function: the body of a function from its signature and docstring."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.code.functions import documented
from data_builders.documents import Document
from data_builders.families import Example, Family


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for function in documented(document, rng, most_lines=10):
        fields = {"signature": function.signature, "docstring": function.summary, "name": function.name}
        yield Example(fields, function.source, function.start, function.end)


FAMILY = Family("docstring_to_function", group="programming", kind="code", mine=mine)
