"""Missing word: which of four words of the same document was left out of a text that has it twice elsewhere."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from data_builders.cohesion import STEM
from data_builders.documents import Document
from data_builders.families import Example, Family, with_options
from data_builders.passages import tries
from data_builders.text.prose import is_plain
from instructrec.core.segmentation import words

# A whole word between spaces: a part of an address would hide the rest of it from the privacy gate.
_WORD = re.compile(r"(?<= )[a-z]{5,}(?= )")
_LETTERS = re.compile(r"[a-z]{5,}")
SMALL = frozenset(
    words(
        "about above after again against along already among another around because become before being below between "
        "could different during either every example following given instead might never other others rather several "
        "should since still their there therefore these thing things those though through under until using where "
        "whether which while whose within without would"
    )
)


def _gaps(text: str) -> list[re.Match[str]]:
    """The places of words that the text has three times."""
    if not any(n >= 3 and word not in SMALL for word, n in Counter(_LETTERS.findall(text)).items()):
        return []  # which is seen faster than all words are counted
    counts = Counter(words(text))
    return [place for place in _WORD.finditer(text) if place[0] not in SMALL and counts[place[0]] >= 3]


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = list(tries(document, rng))
    gaps = [(passage, places) for passage in found if (places := _gaps(passage.text)) and is_plain(passage.text)]
    if not gaps:
        return
    known = found[:8]
    near = " | ".join(f" {passage.text} " for passage in known).replace("\n", " ")
    # Alike in ending, so that grammar alone does not give the answer away.
    alike: dict[str, list[str]] = defaultdict(list)
    for word in dict.fromkeys(word for passage in known for word in _WORD.findall(passage.text)):
        if word not in SMALL:
            alike[word[-2:]].append(word)
    for passage, places in gaps:
        text, folded = passage.text, passage.text.lower()
        gap = rng.choice(places)
        left, right = text[: gap.start()].split()[-1], text[gap.end() :].split(maxsplit=1)[0]
        # Of the other words, none stands in the text, and none is known to stand beside the same word.
        others = [word for word in alike[gap[0][-2:]] if word[:STEM] not in folded]
        others = [word for word in others if f" {left} {word} " not in near and f" {word} {right} " not in near]
        options = with_options(gap[0], others, rng)
        if options is not None and len(options) >= 3:
            asked = f"{text[: gap.start()]}____{text[gap.end() :]}"
            yield Example({"text": asked}, gap[0], passage.start, passage.end, options)


FAMILY = Family("missing_word", group="infilling", kind="text", mine=mine)
