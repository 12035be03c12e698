"""Repair spacing: a sentence whose words run together, some of them or all."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import is_simple, plain_sentences

_GAP = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 6, 40):
        gaps = [match.start() for match in _GAP.finditer(sentence)]
        if len(gaps) < 5 or not is_simple(sentence):
            continue
        if len(gaps) <= 14 and rng.random() < 0.5:
            lost = set(range(len(sentence)))
        else:
            lost = set(rng.sample(gaps, rng.randint(3, 5)))
        joined = "".join(c for i, c in enumerate(sentence) if c != " " or i not in lost)
        fields = {"sentence": joined, "count": str(len(sentence) - len(joined))}
        yield Example(fields, sentence, passage.start, passage.end)


# All repairs give a damaged sentence back whole.
FAMILY = Family("repair_spacing", group="repair", kind="text", mine=mine)
