"""Section heading: which of the page's own headings stands over this passage."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.cohesion import terms
from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.passages import is_name, tries


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    headings = [s.heading.text for s in document.sections if s.heading is not None and is_name(s.heading.text)]
    if len(set(headings)) < 3:
        return
    for passage in tries(document, rng):
        heading = passage.section.heading
        if heading is None or headings.count(heading.text) != 1:
            continue
        folded, own = passage.text.lower(), terms(heading.text)
        if not any(term in folded for term in own):
            continue  # seen faster than the terms of the passage
        # The passage names what its heading names, and less of what any other one does.
        given = terms(passage.text)
        shared = len(given & own)
        options = with_options(heading.text, [h for h in headings if len(given & terms(h)) < shared], rng)
        if options is None or len(options) < 3:
            continue
        yield Example({"passage": passage.text}, heading.text, heading.start, passage.end, options)


FAMILY = Family("section_heading", group="naming", kind="text", mine=mine)
