"""Command choice: which of a page's commands does what a description says."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.commands import commands
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = commands(document)
    for one in drawn(found, rng):
        options = with_options(one.command, [other.command for other in found], rng)
        if options is not None and len(options) >= 3:
            yield Example({"description": one.description}, one.command, one.start, one.end, options)


# Held out together: one is the other asked backwards.
FAMILY = Family("command_choice", group="commands", kind="text", mine=mine)
