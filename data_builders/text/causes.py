"""Cause and effect inside one sentence, told by an English word that says nothing else ("because", "due to")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document
from data_builders.passages import Passage, is_clean, passages
from instructrec.core.segmentation import count_words

_SIGNAL = re.compile(
    r"\b[Bb]ecause\b|\bdue to\b|, so (?!that\b|far\b|long\b|much\b|many\b|as\b|on\b|called\b)|, which means\b"
)
_AFTER = re.compile(
    r"(?:(?:Note|You can see) that )?(?P<effect>.+?)(?:, (?:because of|due to)|,? because(?! of)) (?P<cause>.+)[.]"
)
_BEFORE = re.compile(r"Because (?!of\b)(?P<cause>[^,]+), (?P<effect>[^,]+)[.]")
_SO = re.compile(
    r"(?:(?:Note|You can see) that )?(?P<cause>.+), (?:so|which means(?: that)?) "
    r"(?P<effect>(?!(?:can|may|will|must|should|is|are) ).+)[.]"
)
# What makes it unclear how far either part reaches.
_JOINED = re.compile(
    r"[\[\]{}|\\;:?—–()]| -- | - |http|`_|, (?:and|but|so|or|which|while|as|since|if|when|where|who|because|although|"
    r"though|whereas|then|unless)\b|\b(?:whether|although|though|whereas|however|therefore|so that)\b"
)
_NEGATED = re.compile(r"\b(?:is|are|was|were|do|does|did) not\b|n['’]t\b|\bnot because\b")
_WEAKENED = re.compile(
    r"\b(?:just|only|simply|partly|mainly|largely|mostly|primarily|part|merely|probably|perhaps|maybe|either|both|is|was|"
    r"are|were|be|exactly|precisely)$"
)
# Leaves what is meant to another sentence.
ANAPHORA = re.compile(
    r"(?:And|But|So|Or|This|That|These|Those|It|They|He|She|Such|Yet|If|When|As|While|In|For|Thus|Also|Again|Now|Here|However|Then|Remember|Instead|Finally|Unlike|Otherwise|Therefore|Additionally|Although)\b"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Both clauses as they stand in `sentence`."""

    cause: str
    effect: str
    sentence: str
    passage: Passage


def _split(sentence: str) -> tuple[str, str] | None:
    """(cause, effect), or null."""
    if len(_SIGNAL.findall(sentence)) != 1:
        return None
    match = _BEFORE.fullmatch(sentence) or _AFTER.fullmatch(sentence) or _SO.fullmatch(sentence)
    if match is None:
        return None
    cause, effect = match["cause"], match["effect"]
    if ANAPHORA.match(sentence) or _JOINED.search(cause) or _JOINED.search(effect) or _WEAKENED.search(effect):
        return None
    # "It is not fast because of X" may deny the cause; after a comma it cannot.
    if match.re is _AFTER and _NEGATED.search(effect) and sentence[match.end("effect")] != ",":
        return None
    return cause, effect


@lru_cache(maxsize=1)
def causes(document: Document) -> list[Cause]:
    """Every sentence that names a cause of 4 to 25 words and an effect of as many."""
    found = []
    for passage in passages(document):
        if not any(signal in passage.text for signal in ("ecause", "due to", ", so ", ", which means")):
            continue
        for sentence in passage.sentences:
            parts = _split(sentence) if _SIGNAL.search(sentence) and is_clean(sentence) else None
            if parts is not None and all(4 <= count_words(part) <= 25 for part in parts):
                found.append(Cause(*parts, sentence, passage))
    return found
