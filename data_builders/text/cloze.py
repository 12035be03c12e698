"""Gaps in a quotation from a passage; the passage itself, shown in full, fills them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, drawn
from data_builders.passages import tries
from instructrec.core.segmentation import count_words

AROUND = 9
"""Words of the quotation on each side of the gap."""

GAP = "____"


def quoted(sentence: str, start: int, end: int) -> str:
    """The words around characters `start..end` of a sentence, with a gap in their place."""
    before, after = sentence[:start].split(" "), sentence[end:].split(" ")
    left = " ".join(["...", *before[-AROUND - 1 :]] if len(before) > AROUND + 1 else before)
    right = " ".join([*after[: AROUND + 1], "..."] if len(after) > AROUND + 1 else after)
    return f"{left}{GAP}{right}"


def gaps(document: Document, rng: random.Random, fills: re.Pattern[str]) -> Iterator[Example]:
    """One gap per passage where `fills` stands once in its sentence and the words around it once in the passage."""
    for passage in tries(document, rng):
        for sentence in drawn(passage.sentences, rng):
            found = list(fills.finditer(sentence))
            if not found or not 8 <= count_words(sentence) <= 45 or GAP in sentence:
                continue
            gap = rng.choice(found)
            # The answer must not stand in the quotation, nor the quotation twice in the passage.
            if (
                len(re.findall(rf"(?<!\w){re.escape(gap[0])}(?!\w)", sentence)) != 1
                or passage.text.count(sentence) != 1
            ):
                continue
            fields = {"passage": passage.text, "quote": quoted(sentence, *gap.span())}
            yield Example(fields, gap[0], passage.start, passage.end)
            break
