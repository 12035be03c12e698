"""List introduction: which of the document's lead-ins belongs above a list."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.cohesion import common_terms, outdone
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.lists import lists
from instructrec.core.segmentation import count_words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    led = [found for found in lists(document) if 4 <= count_words(found.introduction) <= 40]
    if len(led) < 3:
        return
    common = common_terms([found.introduction for found in led])
    for found in drawn(led, rng):
        others = [other.introduction for other in led if other is not found]
        # A lead-in that shares no word with the list could stand above any.
        options = with_options(found.introduction, outdone(others, found.introduction, found.text, common), rng)
        if options is not None and len(options) >= 3:
            yield Example({"list": found.text}, found.introduction, found.start, found.end, options)


FAMILY = Family("list_introduction", group="naming", kind="text", mine=mine)
