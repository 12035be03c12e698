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
_SMALL = frozenset(
    words(
        "about above after again against along already among another around because become before being below between "
        "could different during either every example following given instead might never other others rather several "
        "should since still their there therefore these thing things those though through under until using where "
        "whether which while whose within without would"
    )
)


def _neighbours(text: str, place: re.Match[str]) -> tuple[str, str]:
    """The words before and after."""
    return text[: place.start()].split()[-1], text[place.end() :].split()[0]


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = list(tries(document, rng))
    before: dict[str, set[str]] = defaultdict(set)
    after: dict[str, set[str]] = defaultdict(set)
    # Alike in ending, so that grammar alone does not give the answer away.
    alike: dict[str, list[str]] = defaultdict(list)
    for passage in found[:8]:
        for place in _WORD.finditer(passage.text):
            left, right = _neighbours(passage.text, place)
            if place[0] not in before and place[0] not in _SMALL:
                alike[place[0][-2:]].append(place[0])
            before[place[0]].add(left)
            after[place[0]].add(right)
    for passage in found:
        text = passage.text
        counts = Counter(words(text))
        places = [place for place in _WORD.finditer(text) if place[0] not in _SMALL and counts[place[0]] >= 3]
        if not places or not is_plain(text):
            continue
        gap = rng.choice(places)
        left, right = _neighbours(text, gap)
        # Of the other words, none stands in the text, and none is known to stand beside the same word.
        others = [word for word in alike[gap[0][-2:]] if word[:STEM] not in text.lower()]
        others = [word for word in others if left not in before[word] and right not in after[word]]
        options = with_options(gap[0], others, rng)
        if options is not None and len(options) >= 3:
            asked = f"{text[: gap.start()]}____{text[gap.end() :]}"
            yield Example({"text": asked}, gap[0], passage.start, passage.end, options)


FAMILY = Family("missing_word", group="infilling", kind="text", mine=mine)
