"""Topic: which of a page's chapters a section belongs to, where its text names what the chapter's heading names."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.cohesion import terms
from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.layout import Block
from data_builders.passages import is_name, tries

LEAST_CHAPTERS, SHARED = 3, 2


def _chapters(document: Document) -> dict[int, tuple[Block, list[str]]]:
    """Place of a section's heading → the heading one level above it, and all headings of that level on the page."""
    above: list[Block] = []
    found = {}
    for block in document.blocks:
        if block.kind == "heading":
            above = [one for one in above if one.level < block.level]
            if above:
                found[block.start] = above[-1]
            above.append(block)
    levels = {
        level: [block.text for block in document.blocks if block.kind == "heading" and block.level == level]
        for level in {chapter.level for chapter in found.values()}
    }
    return {place: (chapter, levels[chapter.level]) for place, chapter in found.items()}


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    chapters = {
        place: (chapter, names)
        for place, (chapter, names) in _chapters(document).items()
        if len(names) >= LEAST_CHAPTERS and is_name(chapter.text) and names.count(chapter.text) == 1
    }
    if not chapters:
        return
    for passage in tries(document, rng):
        heading = passage.section.heading
        if heading is None or heading.start not in chapters:
            continue
        chapter, names = chapters[heading.start]
        given = terms(passage.text) | terms(heading.text)
        named = terms(chapter.text)
        if len(given & named) < SHARED or named <= terms(heading.text) or not passage.text[0].isupper():
            continue
        # No other chapter names anything that the section names.
        options = with_options(chapter.text, [name for name in names if is_name(name) and not given & terms(name)], rng)
        if options is not None and len(options) >= LEAST_CHAPTERS:
            fields = {"passage": passage.text, "heading": heading.text}
            yield Example(fields, chapter.text, chapter.start, passage.end, options)


# As `section_heading`, one level up.
FAMILY = Family("topic", group="naming", kind="text", mine=mine)
