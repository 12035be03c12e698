"""Instruction choice: the answer is the instruction that turned an input into an output (in English)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, shuffled
from data_builders.text.prose import is_simple, plain_sentences
from data_builders.text.transformations import TRANSFORMATIONS


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.language != "en":
        return
    for passage, sentence in plain_sentences(document, rng, 4, 18):
        if not is_simple(sentence):
            continue
        followed, *rest = shuffled(TRANSFORMATIONS, rng)[:4]
        output = followed.apply(sentence)
        # No other option gives this output.
        if output and output != sentence and all(other.apply(sentence) != output for other in rest):
            worded = [t.worded("the sentence", rng) for t in (followed, *rest)]
            options = [option[0].upper() + option[1:] + "." for option in worded]
            fields = {"input": sentence, "output": output}
            yield Example(fields, options[0], passage.start, passage.end, shuffled(options, rng))


FAMILY = Family("instruction_choice", group="transformation", kind="text", mine=mine, computed=True)
