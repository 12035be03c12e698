"""Replace a term: a sentence in which one word gives way to another word of the passage."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import long_words, plain_sentences, vocabulary


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 6, 40):
        found = [match[0] for match in long_words(sentence)]
        # Words within other words would leave open what "every" means.
        whole = [word for word in found if sentence.lower().count(word) == found.count(word)]
        others = [word for word in vocabulary(passage.text) if word not in sentence]
        # Alike in ending, so that the sentence stays one.
        pairs = [(old, new) for old in whole for new in others if old[-2:] == new[-2:]]
        if pairs:
            old, new = rng.choice(pairs)
            fields = {"sentence": sentence, "old": old, "new": new}
            yield Example(fields, sentence.replace(old, new), passage.start, passage.end)


FAMILY = Family("replace_term", group="editing", kind="text", mine=mine, computed=True)
