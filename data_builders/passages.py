"""Passages of prose that families ask about: whole paragraphs of one section, short enough for a small model."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice

from data_builders.documents import Document
from data_builders.families import drawn
from data_builders.layout import Section
from instructrec.core.segmentation import count_words, sentences, words

LEAST_WORDS, MOST_WORDS = 30, 110
"""Words in a passage; 110 are about 150 tokens in English."""

TRIES = 24
"""Passages of a document that a family looks at before it gives up on finding what it needs."""

SENTENCES = 1024
"""Sentences of which a judgement is remembered, because one family after the other asks for it."""

_PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))
_BRACKET = re.compile(r"[][(){}]")
_ENDS = re.compile(r"[.!?。！？…][\"'”’)\]]*$")


@dataclass(frozen=True, eq=False)
class Passage:
    """Consecutive paragraphs of one section; `start`/`end` are characters of the content, `size` is words."""

    text: str
    start: int
    end: int
    size: int
    section: Section
    language: str

    @cached_property
    def paragraphs(self) -> list[list[str]]:
        """The sentences of each paragraph in order."""
        return [sentences(paragraph, self.language) for paragraph in self.text.split("\n\n")]

    @cached_property
    def sentences(self) -> list[str]:
        """The sentences in order, not across paragraphs."""
        return [sentence for paragraph in self.paragraphs for sentence in paragraph]


@lru_cache(maxsize=1)
def _passages(document: Document) -> list[Passage]:
    """All passages of a document; the families ask about one document after the other."""
    return list(_cut(document))


def passages(document: Document, least: int = LEAST_WORDS) -> list[Passage]:
    """Every section's paragraphs as passages of `least`..`MOST_WORDS` words; longer paragraphs are left out."""
    found = _passages(document)
    return found if least <= LEAST_WORDS else [passage for passage in found if passage.size >= least]


def tries(document: Document, rng: random.Random, least: int = LEAST_WORDS) -> Iterator[Passage]:
    """`TRIES` passages of a document at most, in a random order."""
    return islice(drawn(passages(document, least), rng), TRIES)


def _cut(document: Document) -> Iterator[Passage]:
    for section in document.sections:
        texts: list[str] = []
        size = start = end = 0
        for block in section.body:
            if block.kind != "paragraph":
                continue
            length = count_words(block.text)
            if texts and size + length > MOST_WORDS:
                if size >= LEAST_WORDS:
                    yield Passage("\n\n".join(texts), start, end, size, section, document.language or "en")
                texts, size = [], 0
            if length > MOST_WORDS or not _ENDS.search(block.text, len(block.text) - 4):
                continue
            if not texts:
                start = block.start
            texts.append(block.text)
            size, end = size + length, block.end
        if size >= LEAST_WORDS:
            yield Passage("\n\n".join(texts), start, end, size, section, document.language or "en")


@lru_cache(maxsize=SENTENCES)
def is_clean(sentence: str) -> bool:
    """Whether a sentence stands alone: starts like one, ends like one, and opens and closes its brackets."""
    return (
        not sentence[0].islower()
        and sentence[0] not in ")]},;:—–"
        and bool(_ENDS.search(sentence, max(0, len(sentence) - 4)))
        and (not _BRACKET.search(sentence) or all(sentence.count(a) == sentence.count(b) for a, b in _PAIRS))
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
