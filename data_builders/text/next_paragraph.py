"""Next paragraph: which of three paragraphs of the same document comes next."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.cohesion import FAR, common_terms, outdone
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.layout import Block
from data_builders.passages import is_clean
from instructrec.core.segmentation import count_words

TRIES = 12


def _pairs(document: Document) -> list[tuple[Block, Block]]:
    """Neighbouring paragraphs of one section, both of some length."""
    found = []
    for section in document.sections:
        for first, second in zip(section.body, section.body[1:], strict=False):
            if first.kind == second.kind == "paragraph" and len(first.text) >= 90 and len(second.text) <= 450:
                found.append((first, second))
    return found


def _fits(block: Block) -> bool:
    return is_clean(block.text) and 15 <= count_words(block.text) <= 75


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    pairs = _pairs(document)
    if len(pairs) < 4:
        return
    tried = list(islice(drawn(pairs, rng), TRIES))
    tried = [(first, second) for first, second in tried if _fits(first) and _fits(second)]
    common = common_terms([second.text for _, second in tried])
    for first, second in tried:
        # Not what stands right beside: it could follow as well.
        others = [other.text for _, other in tried if abs(other.start - second.start) > FAR // 2]
        options = with_options(second.text, outdone(others, second.text, first.text, common), rng, size=3)
        if options is not None and len(options) == 3:
            yield Example({"passage": first.text}, second.text, first.start, second.end, options)


FAMILY = Family("next_paragraph", group="coherence", kind="text", mine=mine)
