"""Missing phrase: which of four phrases of the same document was left out of a text that has it elsewhere too."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.cohesion import STEM
from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.passages import tries
from data_builders.text.missing_word import SMALL
from data_builders.text.prose import is_plain

# Two words between spaces, wherever one begins.
_PHRASE = re.compile(r"(?<= )(?=([a-z]{5,} [a-z]{5,}) )")
NEAR = 8
"""Passages that give the other options."""


def _phrases(text: str) -> list[tuple[int, str]]:
    """(place, phrase) of every two long words that stand side by side."""
    found = [(match.start(), match[1]) for match in _PHRASE.finditer(text.replace("\n", " "))]
    return [(place, phrase) for place, phrase in found if SMALL.isdisjoint(phrase.split())]


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = [(passage, _phrases(passage.text)) for passage in tries(document, rng) if is_plain(passage.text)]
    others = list(dict.fromkeys(phrase for _, phrases in found[:NEAR] for _, phrase in phrases))
    for passage, phrases in found:
        text = passage.text
        gaps = [(place, phrase) for place, phrase in phrases if len(re.findall(rf"\b{phrase}\b", text)) >= 2]
        if not gaps:
            continue
        place, phrase = rng.choice(gaps)
        folded = text.lower()
        # Neither word of another phrase stands in the text, in any form.
        unknown = [other for other in others if not any(word[:STEM] in folded for word in other.split())]
        options = with_options(phrase, unknown, rng)
        if options is not None and len(options) >= 3:
            asked = f"{text[:place]}____{text[place + len(phrase) :]}"
            yield Example({"text": asked}, phrase, passage.start, passage.end, options)


# As `missing_word`, of two words.
FAMILY = Family("missing_phrase", group="infilling", kind="text", mine=mine)
