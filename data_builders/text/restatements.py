"""Sentences of which the writer says that they repeat what stands before them: "In other words, …", "In short, …".

The phrases are English.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import islice

from data_builders.cohesion import apart, outdone
from data_builders.documents import Document
from data_builders.families import Example, drawn, with_options
from data_builders.passages import TRIES, Passage, is_clean, passages
from instructrec.core.segmentation import count_words

LEAST_WORDS, MOST_WORDS, SHARED = 6, 40, 3

_AGAIN = (
    r"In other words|Put differently|Put another way|To put it (?:another way|differently|simply|plainly)|Put simply"
    r"|Stated differently|Said differently|Simply put|In (?:plain|simple|simpler|layman's) (?:words|terms|English)"
)  # "That is" leads on as often to a consequence
_IN_SHORT = (
    r"In (?:short|brief|summary|sum|a nutshell|a word)|To (?:sum up|summari[sz]e|recap)|Sum(?:ming|med) up|TL;DR"
)
SAID_AGAIN, SUMMED_UP = (re.compile(rf"(?:{phrases})[,:] (?P<said>\S.*)") for phrases in (_AGAIN, _IN_SHORT))
"""A sentence that opens with such a phrase, and what follows it."""
# What sets a rule, or names something: a sentence that does so anew is a consequence.
_CLAIM = re.compile(r"\b(?:must|should|may|cannot|never|always)\b|`[^`]+`")
_POINTS = re.compile(r"^(?:it|this|that|these|those|they|he|she)\b|\b(?:it|they) (?:is|are|was|were)\b", re.IGNORECASE)
_MARKUP = re.compile(r"[\[\]{}<>|\\]|`_|::|\.\.|--|://")


def _is_whole(sentence: str) -> bool:
    """Whether a sentence stands alone and has no markup but code in backticks."""
    return is_clean(sentence) and not _MARKUP.search(sentence) and sentence.count("`") % 2 == 0


def _stands_together(passage: Passage) -> bool:
    """Whether no code, list or table stands within the passage: the writer may speak of that."""
    return all(
        block.kind == "paragraph" for block in passage.section.body if passage.start <= block.start < passage.end
    )


def _others(passage: Passage, among: list[Passage], rng: random.Random) -> Iterator[str]:
    """A whole sentence of each passage that stands apart from this one."""
    for other in drawn(among, rng):
        if apart(other, passage):
            sentence = rng.choice(other.sentences)
            marked = SAID_AGAIN.match(sentence) or SUMMED_UP.match(sentence)
            if not marked and LEAST_WORDS <= count_words(sentence) <= MOST_WORDS and _is_whole(sentence):
                yield sentence


def restated(document: Document, rng: random.Random, marked: re.Pattern[str], least: int) -> Iterator[Example]:
    """Which of four sentences says again what the field `text` says.

    Args:
        marked: `SAID_AGAIN` or `SUMMED_UP`.
        least: 1 if one sentence is said again, the one before; more for all of the passage before, of so many at least.

    The others of the four stand elsewhere in the document and share less than half as many terms with `text`.
    """
    every = passages(document)
    found = [passage for passage in every if marked.search(passage.text) and _stands_together(passage)]
    if not found:
        return
    among = list(islice(drawn(every, rng), TRIES))
    for passage in drawn(found, rng):
        for place, sentence in enumerate(passage.sentences):
            match = marked.fullmatch(sentence)
            before = passage.sentences[:place] if least > 1 else passage.sentences[:place][-1:]
            if match is None or len(before) < least or not _is_whole(sentence):
                continue
            said, text = match["said"], " ".join(before)
            if not LEAST_WORDS <= count_words(said) <= MOST_WORDS or not all(map(_is_whole, before)):
                continue
            if set(_CLAIM.findall(said)) - set(_CLAIM.findall(text)) or _POINTS.search(before[0]):
                continue
            others = list(islice(_others(passage, among, rng), 8))
            said = said[0].upper() + said[1:]
            options = with_options(said, outdone(others, said, text, set(), SHARED), rng)
            if options is not None and len(options) >= 3:
                yield Example({"text": text}, said, passage.start, passage.end, options)
