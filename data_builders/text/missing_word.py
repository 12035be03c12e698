"""Missing word: which of four words of the same document was left out of a sentence."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled, with_options
from data_builders.passages import TRIES, is_clean, passages
from instructrec.core.segmentation import count_words

_WORD = re.compile(r"\b[a-z]{5,}\b")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = shuffled(passages(document), rng)[:TRIES]
    vocabulary = sorted({word for passage in found[:8] for word in _WORD.findall(passage.text)})
    if len(vocabulary) < 12:
        return
    for passage in found:
        for sentence in shuffled(passage.sentences, rng)[:1]:
            inside = _WORD.findall(sentence)
            if not is_clean(sentence) or not 8 <= count_words(sentence) <= 40 or not inside:
                continue
            answer = rng.choice(inside)
            if inside.count(answer) != 1:
                continue
            # Alike in ending, so that grammar alone does not give the answer away.
            alike = [w for w in vocabulary if w[-2:] == answer[-2:] and w not in inside]
            options = with_options(answer, alike, rng)
            if options is not None and len(options) >= 3:
                gap = re.sub(rf"\b{answer}\b", "____", sentence)
                yield Example({"sentence": gap}, answer, passage.start, passage.end, options)


FAMILY = Family("missing_word", group="infilling", kind="text", mine=mine)
