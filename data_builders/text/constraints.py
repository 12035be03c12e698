"""Constraints: a sentence from its keywords in their order, under checkable constraints that it meets (in English)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.facts import facts
from data_builders.text.keywords import keywords
from data_builders.text.prose import plain_sentences, vocabulary
from instructrec.core.language import identify


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.language != "en":
        return
    for passage, sentence in plain_sentences(document, rng, 7, 25):
        words = keywords(sentence)
        if words is None or identify(sentence) != "en":
            continue
        found = facts(sentence, vocabulary(passage.text), rng.randint(2, 4), rng)
        fields = {"keywords": ", ".join(words), "constraints": "\n".join(fact.wording for fact in found)}
        checks = [check for fact in found for check in fact.checks]
        yield Example(fields, sentence, passage.start, passage.end, checks=checks)


# A near twin of `keywords_to_text`.
FAMILY = Family("constraints", group="realisation", kind="text", mine=mine)
