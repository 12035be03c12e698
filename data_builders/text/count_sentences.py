"""Count sentences: how many sentences a passage has, where every mark that could end one does."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries
from data_builders.text.prose import is_sound

_END = re.compile(r"[.!?]+(?=\s|$)")
_INNER = re.compile(r"[.!?:;…。！？；：][^\s.!?]|[:;]")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for passage in tries(document, rng):
        sentences = rng.choice(passage.paragraphs)
        if not 2 <= len(sentences) <= 7:
            continue
        text = " ".join(sentences)
        if _INNER.search(text) or len(_END.findall(text)) != len(sentences):
            continue
        if all(is_sound(sentence, passage) for sentence in sentences):
            yield Example({"passage": text}, str(len(sentences)), passage.start, passage.end)


# A near twin of `count_words`: something is counted in the text.
FAMILY = Family("count_sentences", group="counting", kind="text", mine=mine, computed=True)
