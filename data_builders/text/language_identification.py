"""Language identification: which of four languages a sentence is in, where the document and the detector agree.

In a corpus of one language the answer never varies, and the `majority` gate then drops the family.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.passages import is_clean, tries
from instructrec.core.language import identify

_NAMES = (
    "en English, de German, fr French, es Spanish, it Italian, pt Portuguese, nl Dutch, sv Swedish, fi Finnish, "
    "pl Polish, cs Czech, tr Turkish, vi Vietnamese, zh Chinese, ja Japanese, ko Korean, ru Russian, uk Ukrainian, "
    "el Greek, ar Arabic, he Hebrew, hi Hindi, th Thai"
)
NAMES = dict(pair.split() for pair in _NAMES.split(", "))
LATIN = list(NAMES.values())[:13]
"""Those in Latin script are told from one another, not from Greek."""

LEAST_CHARACTERS = {"zh": 15, "ja": 15, "ko": 20}


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    language = document.language
    name = NAMES.get(language or "")
    if language is None or name is None:
        return
    for passage in tries(document, rng):
        sentence = rng.choice(passage.sentences)
        if not LEAST_CHARACTERS.get(language, 50) <= len(sentence) <= 300 or not is_clean(sentence):
            continue
        # Markup and code look like English.
        letters = sum(map(str.isalpha, sentence)) + sentence.count(" ")
        if letters * 10 < len(sentence) * 9 or identify(sentence) != language:
            continue
        options = with_options(name, LATIN if name in LATIN else list(NAMES.values()), rng)
        yield Example({"sentence": sentence}, name, passage.start, passage.end, options)


FAMILY = Family("language_identification", group="language", kind="text", mine=mine, computed=True)
