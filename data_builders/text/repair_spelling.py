"""Repair spelling: a sentence in which two to five words were misspelt; the answer is the sentence as it was."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import long_words, plain_sentences


def misspelt(word: str, rng: random.Random) -> str:
    """A word of six letters or more with one slip inside: two letters swapped, one doubled, or one left out."""
    i, slip = rng.randrange(1, len(word) - 2), rng.random()
    if slip < 0.6 and word[i] != word[i + 1]:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    # A shorter word might become another one, as "through" does.
    return word[: i + 1] + word[i:] if slip < 0.8 or len(word) < 9 else word[:i] + word[i + 1 :]


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 6, 40):
        found = long_words(sentence)
        if len(found) < 2:
            continue
        chosen = sorted(rng.sample(found, min(rng.randint(2, 5), len(found))), key=lambda match: -match.start())
        wrong = sentence
        for match in chosen:
            slip = misspelt(match[0], rng)
            if slip in document.content:
                break
            wrong = wrong[: match.start()] + slip + wrong[match.end() :]
        else:
            fields = {"sentence": wrong, "count": str(len(chosen))}
            yield Example(fields, sentence, passage.start, passage.end)


FAMILY = Family("repair_spelling", group="repair", kind="text", mine=mine)
