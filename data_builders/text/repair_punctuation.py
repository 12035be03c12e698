"""Repair punctuation: a sentence without its marks, which are given in their order."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import plain_sentences

_MARK = re.compile(r"[,;:.!?](?=\s|$)")
_BEFORE_MARK = re.compile(r"([^\s,;:.!?]+)[,;:.!?](?=\s|$)")
_OTHER = re.compile(r"[^\w\s,;:.!?'’-]|\s[-–—]|\.\s")  # a full stop inside is an abbreviation's


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 6, 40):
        if ("," not in sentence and ";" not in sentence) or _OTHER.search(sentence):
            continue
        marks = _MARK.findall(sentence)
        if 2 <= len(marks) <= 4:
            fields = {"sentence": _MARK.sub("", sentence), "marks": " ".join(marks), "count": str(len(marks))}
            fields["after"] = ", ".join(_BEFORE_MARK.findall(sentence))
            yield Example(fields, sentence, passage.start, passage.end)


# All repairs give a damaged sentence back whole.
FAMILY = Family("repair_punctuation", group="repair", kind="text", mine=mine, extractive=True)
