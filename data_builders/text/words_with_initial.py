"""Words with an initial: all words of a sentence that begin with a given letter, in order."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import is_simple, plain_sentences
from instructrec.core.segmentation import words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 8, 30):
        if not is_simple(sentence):
            continue
        by_initial: dict[str, list[str]] = {}
        for word in words(sentence):
            by_initial.setdefault(word[0].lower(), []).append(word)
        # A word that occurs twice would leave open whether to write it twice.
        fit = [(c, w) for c, w in by_initial.items() if 2 <= len(w) <= 5 and len({v.lower() for v in w}) == len(w)]
        if fit:
            letter, found = rng.choice(fit)
            fields = {"sentence": sentence, "letter": letter, "count": str(len(found))}
            yield Example(fields, "\n".join(found), passage.start, passage.end)


# A near twin of `longest_word`: words of a sentence by their form.
FAMILY = Family("words_with_initial", group="word_search", kind="text", mine=mine, extractive=True)
