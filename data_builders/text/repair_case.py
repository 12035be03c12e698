"""Repair case: a sentence all in small or all in capital letters; the words with capitals inside are given."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import plain_sentences
from instructrec.core.segmentation import words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 6, 40):
        first, *rest = words(sentence)
        capital = [word for word in dict.fromkeys(rest) if not word.islower() and word.lower() != word]
        small = {word for word in rest if word.islower()}
        # Only the first word may be capital for its place; every other one is given, and always written so.
        if not first.istitle() or len(capital) > 3 or any(len(w) == 1 or w.lower() in small for w in capital):
            continue
        changed = sentence.lower() if rng.random() < 0.6 else sentence.upper()
        if changed.lower() == sentence.lower():  # not so with all letters of all scripts
            fields = {"sentence": changed, "capitals": ", ".join(capital)}
            yield Example(fields, sentence, passage.start, passage.end)


# All repairs give a damaged sentence back whole.
FAMILY = Family("repair_case", group="repair", kind="text", mine=mine, extractive=True)
