"""Gap question: the answer is a question, a sentence of the passage with a gap where a given word stood."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.passages import Passage
from data_builders.text.prose import long_words, plain_sentences, vocabulary

GAP = "____"


def gaps(document: Document, rng: random.Random) -> Iterator[tuple[Passage, str, re.Match[str], list[str]]]:
    """A passage, a clean sentence of it, a word that is nowhere else in it, and three or more words unlike that one."""
    for passage, sentence in plain_sentences(document, rng, 6, 35):
        folded = passage.text.lower()
        found = [match for match in long_words(sentence) if folded.count(match[0]) == 1]
        if not found or len(passage.sentences) < 2:
            continue
        others = [word for word in vocabulary(passage.text) if word not in sentence]
        if len(others) < 3:
            continue
        gap = rng.choice(found)
        # Alike in ending first, so that grammar alone does not give the answer away.
        alike = sorted(shuffled(others, rng), key=lambda word: word[-2:] != gap[0][-2:])
        yield passage, sentence, gap, alike


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage, sentence, gap, others in gaps(document, rng):
        question = sentence[: gap.start()] + GAP + sentence[gap.end() :]
        offered = sorted([gap[0], *others[:3]])
        fields = {"passage": passage.text, "word": gap[0], "offered": ", ".join(offered)}
        yield Example(fields, question, passage.start, passage.end)


FAMILY = Family("gap_question", group="quiz", kind="text", mine=mine, extractive=True, computed=True)
