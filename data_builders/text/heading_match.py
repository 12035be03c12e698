"""Heading match: which of the numbered headings belongs to which of the numbered excerpts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.cohesion import terms
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, shuffled
from data_builders.layout import Block
from data_builders.passages import is_name
from instructrec.core.segmentation import count_words

SIZE, TRIES = 3, 20


def _headed(document: Document) -> list[tuple[Block, Block]]:
    """(heading, first paragraph) of the sections that have both."""
    return [
        (section.heading, section.body[0])
        for section in document.sections
        if section.heading and section.body and section.body[0].kind == "paragraph" and is_name(section.heading.text)
    ]


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    every = _headed(document)
    if len(every) < SIZE:
        return
    # Only headings that share a word with their own excerpt: others do not determine the match.
    tried = [
        (heading, first, terms(heading.text), terms(first.text))
        for heading, first in islice(drawn(every, rng), TRIES)
        if 12 <= count_words(first.text) <= 70 and first.text[-1] in ".!?。！？"
    ]
    chosen: list[tuple[Block, Block, frozenset[str], frozenset[str]]] = []
    for entry in tried:
        if not entry[2] & entry[3] or any(entry[2] & one[3] or one[2] & entry[3] for one in chosen):
            continue
        chosen.append(entry)
        if len(chosen) < SIZE:
            continue
        order = shuffled(range(SIZE), rng)
        headings = "\n".join(f"{n}. {entry[0].text}" for n, entry in enumerate(chosen, start=1))
        excerpts = "\n\n".join(f"({'ABC'[n]}) {chosen[k][1].text}" for n, k in enumerate(order))
        answer = ", ".join(f"{n + 1}-{'ABC'[order.index(n)]}" for n in range(SIZE))
        start, end = min(entry[0].start for entry in chosen), max(entry[1].end for entry in chosen)
        yield Example({"headings": headings, "excerpts": excerpts}, answer, start, end)
        chosen = []


FAMILY = Family("heading_match", group="naming", kind="text", mine=mine, computed=True)
