"""Passages of prose that families ask about: whole paragraphs of one section, short enough for a small model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data_builders.documents import Document
from data_builders.layout import Section
from instructrec.core.segmentation import sentences, words

MOST_WORDS = 110
"""Words in a passage at most; about 150 tokens in English."""

_ENDS = re.compile(r"[.!?。！？…][\"'”’)\]]*$")


@dataclass(frozen=True, slots=True)
class Passage:
    """Consecutive paragraphs of one section; `start`/`end` are characters of the document's content."""

    text: str
    start: int
    end: int
    section: Section


def passages(document: Document, least: int = 30, most: int = MOST_WORDS) -> Iterator[Passage]:
    """Cut every section's paragraphs into passages of `least`..`most` words; longer paragraphs are left out."""
    for section in document.sections:
        texts: list[str] = []
        size = start = end = 0
        for block in section.paragraphs:
            length = len(words(block.text))
            if texts and size + length > most:
                if size >= least:
                    yield Passage("\n\n".join(texts), start, end, section)
                texts, size = [], 0
            if length > most or not _ENDS.search(block.text):
                continue
            if not texts:
                start = block.start
            texts.append(block.text)
            size, end = size + length, block.end
        if texts and size >= least:
            yield Passage("\n\n".join(texts), start, end, section)


def passage_sentences(passage: Passage, language: str | None) -> list[str]:
    """The sentences of a passage in order, not across paragraphs."""
    return [s for paragraph in passage.text.split("\n\n") for s in sentences(paragraph, language or "en")]


def is_clean(sentence: str) -> bool:
    """Whether a sentence stands alone: starts like one, ends like one, and opens and closes its brackets."""
    return (
        bool(_ENDS.search(sentence))
        and not sentence[0].islower()
        and sentence[0] not in ")]},;:—–"
        and all(sentence.count(a) == sentence.count(b) for a, b in ("()", "[]", "{}"))
    )


def is_name(heading: str) -> bool:
    """Whether a heading names what follows, rather than being boilerplate every document shares, or code."""
    return (
        heading.casefold().strip(" :") not in _GENERIC
        and 1 <= len(words(heading)) <= 12
        and len(heading) >= 3
        and any(c.isalpha() for c in heading)
        and not re.search(r"[=<>{}\\]|^\W", heading)
    )


_GENERIC = {
    *(
        "notes",
        "note",
        "abstract",
        "introduction",
        "references",
        "copyright",
        "see also",
        "example",
        "examples",
        "summary",
    ),
    *(
        "overview",
        "index",
        "contents",
        "table of contents",
        "conclusion",
        "acknowledgements",
        "acknowledgments",
        "appendix",
    ),
    *("changelog", "license", "licence", "footnotes", "description", "usage", "warning", "rationale", "motivation"),
    *(
        "specification",
        "backwards compatibility",
        "discussion",
        "resolution",
        "status",
        "todo",
        "parameters",
        "returns",
    ),
}
