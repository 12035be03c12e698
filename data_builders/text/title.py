"""Title: the page's first heading, from its words in another order and the passage below it (in English)."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.cohesion import STEM
from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.passages import is_name, passages
from data_builders.text.keywords import FUNCTION_WORDS
from instructrec.core.segmentation import words

_TITLE = re.compile(r"[\w'’\-]+(?: [\w'’\-]+)+")
# Headings that every book has, and that name no subject.
_STRUCTURAL = re.compile(r"\b(?:appendix|chapter|foreword|introduction|part|preface|section|summary|version)\b", re.I)
_MARKUP = re.compile(r"\]\[|\]\(|`_|::")


def _stems(text: str) -> set[str]:
    """The stems of all words but the small ones; unlike `cohesion.terms`, also of short words."""
    return {word[:STEM].rstrip("s") for word in words(text.lower()) if word not in FUNCTION_WORDS}


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    first = document.blocks[0] if document.blocks else None
    if document.language != "en" or first is None or first.kind != "heading":
        return
    title = first.text
    if not _TITLE.fullmatch(title) or not is_name(title) or _STRUCTURAL.search(title):
        return
    for passage in passages(document)[:1]:
        given = title.split()
        stems, mixed = _stems(title), shuffled(given, rng)
        if len(stems) < 2 or not stems <= _stems(passage.text):
            return
        if passage.text[0].isupper() and not _MARKUP.search(passage.text):
            mixed = mixed if mixed != given else mixed[::-1]
            yield Example({"passage": passage.text, "words": ", ".join(mixed)}, title, first.start, passage.end)


FAMILY = Family("title", group="naming", kind="text", mine=mine)
