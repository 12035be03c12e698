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

# Two words between spaces; the second may be the first of the next.
_PHRASE = re.compile(r"(?<= )[a-z]{5,} (?=([a-z]{5,}) )")
NEAR = 8
"""Passages that give the other options."""


def _phrases(text: str) -> list[str]:
    """Every two long words that stand side by side."""
    found = (match[0] + match[1] for match in _PHRASE.finditer(text))
    return [phrase for phrase in found if SMALL.isdisjoint(phrase.split())]


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = [(passage.text, passage, _phrases(passage.text)) for passage in tries(document, rng)]
    others: list[str] = []
    for text, passage, phrases in found:
        repeated = sorted(phrase for phrase in set(phrases) if text.count(phrase) > 1)
        if not repeated or not is_plain(text) or any(one[0].islower() for one in text.split("\n\n")):
            continue
        phrase = rng.choice(repeated)
        places = [match.start() for match in re.finditer(rf"(?<= ){phrase}(?= )", text)]
        if len(re.findall(rf"\b{phrase}\b", text)) < 2:
            continue
        others = others or list(dict.fromkeys(one for _, _, theirs in found[:NEAR] for one in theirs))
        folded = text.lower()
        # Neither word of another phrase stands in the text, in any form.
        unknown = [other for other in others if not any(word[:STEM] in folded for word in other.split())]
        options = with_options(phrase, unknown, rng)
        if options is not None and len(options) >= 3:
            place = rng.choice(places)
            asked = f"{text[:place]}____{text[place + len(phrase) :]}"
            yield Example({"text": asked}, phrase, passage.start, passage.end, options)


# As `missing_word`, of two words.
FAMILY = Family("missing_phrase", group="infilling", kind="text", mine=mine)
