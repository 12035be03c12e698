"""Sentences and words in any language, with their places. Nothing here assumes English or spaces between words."""

from __future__ import annotations

import re
from functools import lru_cache

import sentencex

# Scripts written without spaces count by character: Han, Hiragana, Katakana, Thai, Lao, Myanmar, Khmer.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
SPACED = rf"[^\W{UNSPACED}]"
"""A word character of any other script: two words of these have something between them."""
_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:['’\-_.][^\W_{UNSPACED}]+)*")
_ASCII_WORD = re.compile(r"[A-Za-z0-9]+(?:['\-_.][A-Za-z0-9]+)*")  # the same on ASCII, and faster
_UNSPACED_CHARACTER = re.compile(rf"[{UNSPACED}\u3000-\u303f\uff00-\uffef]")


def words(text: str) -> list[str]:
    """The words of `text`: runs of letters and digits with inner hyphens and dots; single characters where unspaced."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


@lru_cache(maxsize=1024)  # of one sentence many families ask it
def count_words(text: str) -> int:
    """About `len(words(text))`, several times faster where words are separated by spaces."""
    return len(words(text)) if not text.isascii() and _UNSPACED_CHARACTER.search(text) else len(text.split())


def sentences(text: str, language: str) -> list[str]:
    """The sentences of one paragraph, stripped, none empty (sentencex; unknown languages use its fallback rules)."""
    stripped = (sentence.strip() for sentence in sentencex.segment(language, text))
    return [sentence for sentence in stripped if sentence]


def unwrap(text: str) -> str:
    """Join hard-wrapped lines: a space between words, none inside unspaced scripts or after a hyphen."""
    if text.isascii() and "-\n" not in text:
        return " ".join(text.split())
    joined = ""
    for line in text.split("\n"):
        line = " ".join(line.split())
        if not joined or not line:
            joined += line
            continue
        unspaced = _UNSPACED_CHARACTER.match(joined[-1]) or _UNSPACED_CHARACTER.match(line[0])
        hyphen = joined[-1] == "-" and len(joined) > 1 and joined[-2].isalpha() and line[0].islower()
        joined += line if unspaced or hyphen else f" {line}"
    return joined
