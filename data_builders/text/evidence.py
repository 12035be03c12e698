"""Evidence: the one sentence of a passage that mentions a given number, name or word."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.prose import long_words, plain_sentences

_NUMBER_OR_NAME = re.compile(r"(?<=[\w,;] )(?:\d[\d.,]*\d|[A-Z]\w+)(?=[\s,;.!?)])")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence in plain_sentences(document, rng, 6, 40):
        if len(passage.sentences) < 3 or passage.text.count(sentence) != 1:
            continue
        clues = _NUMBER_OR_NAME.findall(sentence) or [match[0] for match in long_words(sentence)]
        folded = passage.text.casefold()
        only_here = [clue for clue in clues if folded.count(clue.casefold()) == 1]
        if only_here:
            fields = {"passage": passage.text, "clue": rng.choice(only_here)}
            yield Example(fields, sentence, passage.start, passage.end)


FAMILY = Family("evidence", group="quoting", kind="text", mine=mine, extractive=True)
