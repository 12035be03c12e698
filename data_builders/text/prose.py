"""Sentences of plain prose, for the families that change them, count in them or ask about their words."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from functools import lru_cache

from data_builders.documents import Document
from data_builders.passages import SENTENCES, Passage, is_clean, tries
from instructrec.core.segmentation import UNSPACED, count_words

_UNSPACED = re.compile(f"[{UNSPACED}]")
_MARKUP = re.compile(r"[`*_<>\[\]{}|\\#=~^@$%&/+]|\.\.|::|--")
# The end of a sentence within a quotation, or an abbreviation before a name.
_INNER_END = re.compile(r"[.!?…][\"”’)]*\s+[\"“‘(]?(?![a-z])[^\W\d_]")
_END = re.compile(r"[.!?。！？…][\"”’)]*$")
_NOT_WORDS = re.compile(rf"[^\w ,.;:!?()]|[\d_{UNSPACED}]")
_NOT_ASCII_WORDS = re.compile(r"[^A-Za-z ,.;:!?()]")  # the same on ASCII, and faster
_NOT_SPACED = re.compile(r"[(,.;:!?)](?:(?<=\w\()|(?<!\()\w)")
_LONG_WORD = re.compile(rf"(?<!\S)[^\W\d_{UNSPACED}]{{6,}}(?=[,.;:!?]?(?:\s|$))")
_LONG_ASCII_WORD = re.compile(r"(?<!\S)[a-z]{6,}(?=[,.;:!?]?(?:\s|$))")  # the same on ASCII, and faster


def is_plain(text: str) -> bool:
    """Whether a text is without markup, addresses and formulas, and closes the quotations it opens."""
    return not _MARKUP.search(text) and text.count('"') % 2 == 0 and text.count("“") == text.count("”")


def is_finished(text: str) -> bool:
    """Whether a text is plain and ends as a sentence does."""
    return _END.search(text) is not None and is_plain(text)


@lru_cache(maxsize=SENTENCES)
def is_simple(text: str) -> bool:
    """Whether a text is nothing but words of letters, spaces and common marks, so that all count its words alike."""
    odd = _NOT_ASCII_WORDS if text.isascii() else _NOT_WORDS
    return not odd.search(text) and not _NOT_SPACED.search(text)


@lru_cache(maxsize=SENTENCES)
def is_sound(sentence: str, passage: Passage) -> bool:
    """Whether a sentence of the passage is clean, plain, a single one, and cut at spaces, not as if 2.X ended one."""
    if not is_clean(sentence) or not is_plain(sentence) or _INNER_END.search(sentence):
        return False
    start = passage.text.find(sentence)
    around = passage.text[start - 1 : start] + passage.text[start + len(sentence) :][:1]
    return start >= 0 and (not around or around.isspace())


def plain_sentences(document: Document, rng: random.Random, least: int, most: int) -> Iterator[tuple[Passage, str]]:
    """A clean sentence of `least`–`most` words without markup from each passage that has it at the place drawn."""
    for passage in tries(document, rng):
        sentence = rng.choice(passage.sentences)
        if least <= count_words(sentence) <= most and is_sound(sentence, passage):
            yield passage, sentence


@lru_cache(maxsize=SENTENCES)
def long_words(text: str) -> tuple[re.Match[str], ...]:
    """The places of words of six letters or more, all lower case, that stand between spaces or before a mark."""
    if text.isascii():
        return tuple(_LONG_ASCII_WORD.finditer(text))
    return tuple(match for match in _LONG_WORD.finditer(text) if match[0].islower())


@lru_cache(maxsize=SENTENCES)
def vocabulary(text: str) -> tuple[str, ...]:
    """The distinct words that `long_words` finds, sorted; several families ask for those of one passage."""
    bare = (word[:-1] if word[-1] in ",.;:!?" else word for word in text.split())
    found = {word for word in bare if len(word) >= 6 and word.isalpha() and word.islower()}
    return tuple(sorted(word for word in found if word.isascii() or not _UNSPACED.search(word)))
