"""Outline: the headings of a piece of a page, in order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.layout import Section
from data_builders.passages import is_name
from instructrec.core.segmentation import count_words

MOST_WORDS = 50
"""Words shown of a section."""

_MARKS = ("# {}", "## {}", "{}\n{rule}", "== {} ==", "<h2>{}</h2>", "**{}**", "{}:")


def _opening(section: Section) -> str:
    """The first paragraph of a section if it is short enough to be shown whole."""
    first = section.body[0] if section.body else None
    if first is None or first.kind != "paragraph" or len(first.text) > 8 * MOST_WORDS:
        return ""
    return first.text if 8 <= count_words(first.text) <= MOST_WORDS and first.text[-1] in ".!?。！？" else ""


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    page = document.sections
    found = [s.heading if s.heading and len(s.heading.text) >= 3 and _opening(s) else None for s in page]
    starts = [i for i in range(len(page) - 2) if all(found[i : i + 3])]
    for i in drawn(starts, rng):
        size = next((n for n in range(3, 6) if i + n >= len(page) or not found[i + n]), 5)
        headings = [heading for heading in found[i : i + size] if heading]
        titles = [heading.text for heading in headings]
        if len(set(titles)) < size or not all(is_name(title) and ";" not in title for title in titles[:3]):
            continue
        mark = rng.choice(_MARKS)
        parts = [
            f"{mark.format(title, rule='-' * len(title))}\n\n{_opening(section)}"
            for title, section in zip(titles, page[i : i + size], strict=True)
        ]
        fields = {"page": "\n\n".join(parts), "count": str(size)}
        yield Example(fields, "\n".join(titles), headings[0].start, page[i + size - 1].body[0].end)


FAMILY = Family("outline", group="outline", kind="text", mine=mine, extractive=True)
