"""Transform: a sentence changed by a rule that the instruction names (in English)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import is_simple, plain_sentences
from data_builders.text.transformations import TRANSFORMATIONS


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.language != "en":
        return
    for passage, sentence in plain_sentences(document, rng, 5, 30):
        rule = rng.choice(TRANSFORMATIONS)
        if is_simple(sentence) and (changed := rule.apply(sentence)) not in ("", sentence):
            fields = {"sentence": sentence, "instruction": rule.worded("this sentence", rng)}
            yield Example(fields, changed, passage.start, passage.end)


# The same rules as in `instruction_choice`.
FAMILY = Family("transform", group="transformation", kind="text", mine=mine, extractive=True, computed=True)
