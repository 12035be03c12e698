"""Composition: one sentence of a paragraph is chosen, and something is done to it (in English)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries
from data_builders.text.prose import is_simple, is_sound, long_words
from data_builders.text.transformations import TRANSFORMATIONS
from instructrec.core.segmentation import count_words

_ORDINALS = ("first", "second", "third", "fourth", "fifth")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    if document.language != "en":
        return
    for passage in tries(document, rng):
        sentences = rng.choice(passage.paragraphs)
        if not 2 <= len(sentences) <= 5 or not all(is_sound(s, passage) for s in sentences):
            continue
        place = rng.randrange(len(sentences))
        sentence, text = sentences[place], " ".join(sentences)
        if not 4 <= count_words(sentence) <= 30 or not is_simple(sentence) or ":" in text:
            continue
        choices = [f"take the {_ORDINALS[place]} sentence of the text"]
        if place == len(sentences) - 1:
            choices.append("take the last sentence of the text")
        elif place == len(sentences) - 2:
            choices.append("take the last sentence but one of the text")
        only_here = [match[0] for match in long_words(sentence) if text.lower().count(match[0]) == 1]
        if only_here:
            choices.append(f'find the sentence that contains "{rng.choice(only_here)}"')
        rule = rng.choice(TRANSFORMATIONS)
        if changed := rule.apply(sentence):
            fields = {"text": text, "first": rng.choice(choices), "second": rule.worded("it", rng)}
            yield Example(fields, changed, passage.start, passage.end)


# The same rules as in `instruction_choice`.
FAMILY = Family("composition", group="transformation", kind="text", mine=mine, extractive=True, computed=True)
