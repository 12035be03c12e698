"""Error spotting: the one misspelt word of a sentence."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import long_words, plain_sentences
from data_builders.text.repair_spelling import misspelt


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 8, 30):
        found = long_words(sentence)
        if not found:
            continue
        match = rng.choice(found)
        slip = misspelt(match[0], rng)
        if slip not in document.content:
            wrong = sentence[: match.start()] + slip + sentence[match.end() :]
            yield Example({"sentence": wrong, "correct": match[0]}, slip, passage.start, passage.end)


# A near twin of `repair_spelling`: the same slips.
FAMILY = Family("error_spotting", group="repair", kind="text", mine=mine, extractive=True, computed=True)
