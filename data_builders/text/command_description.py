"""Command description: which of a page's descriptions, each an order, a command carries out."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.commands import commands
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = commands(document)
    for one in drawn(found, rng):
        options = with_options(one.description, [other.description for other in found], rng)
        if options is not None and len(options) >= 3:
            yield Example({"command": one.command}, one.description, one.start, one.end, options)


FAMILY = Family("command_description", group="commands", kind="text", mine=mine)
