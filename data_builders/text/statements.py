"""Statements that contradict one of a passage: its sentence with one number, negation or word changed.

The word lists are English.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import drawn
from data_builders.passages import Passage, is_clean, tries
from instructrec.core.segmentation import count_words

_DIGITS = re.compile(r"(?<= )[1-9]\d{0,3}(?=[ ,;)]|[.]$)")
_COUNTS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNT = re.compile(rf"\b({'|'.join(_COUNTS)})\b(?= [a-z])")
_PAIRS = (
    "before after, always never, more less, first last, minimum maximum, earlier later, older newer, "
    "faster slower, larger smaller, higher lower, longer shorter, easier harder, better worse, valid invalid, "
    "explicit implicit, explicitly implicitly, public private, required optional, possible impossible, "
    "increase decrease, increases decreases, most least, many few, inside outside, enabled disabled, "
    "allowed forbidden, positive negative, necessary unnecessary, success failure, oldest newest, largest smallest, "
    "upper lower, early late, directly indirectly, usually rarely, often seldom, everyone nobody, everything nothing, "
    "simple complicated, safe unsafe, mutable immutable, accept reject, accepts rejects, accepted rejected, "
    "supported unsupported, known unknown, true false, succeed fail"
)
_OPPOSITE: dict[str, str] = {}
for _pair in _PAIRS.split(", "):
    _one, _other = _pair.split()
    _OPPOSITE |= {_one: _other} | ({} if _other in _OPPOSITE else {_other: _one})
# After these a word opposes nothing: "no more", "at least one", "more or less", "at first", "more than".
_OPPOSED = re.compile(
    rf"(?<!\b[Nn]o )(?<!\bat )(?<!\bor )(?<!\bor, )(?<!-)\b({'|'.join(_OPPOSITE)})\b(?! or )(?![\w\-(`'’/]| of\b)"
)
_LETTERS = re.compile("[a-z]+")
_AFFIRMED = re.compile(r" (?:is|are|was|were|can|must|should|will|would|does|do|did) (?=[a-z])")
_DENIED = re.compile(
    r" (is|are|was|were|must|should|will|would) not (?!only|just|yet|necessarily|even|always|so)| (can)not (?!only)"
)
_ANY_DENIAL = re.compile(
    r"\b(?:not|no|never|none|nor|neither|nothing|cannot|only|unless|hardly|without|any)\b|n['’]t\b"
)
_MARKUP = re.compile(r"[\[\]{}<>|\\?]|http|`_|::")


def _swapped(sentence: str, match: re.Match[str], by: str) -> str:
    return sentence[: match.start()] + by + sentence[match.end() :]


def changed(sentence: str, passage: str, rng: random.Random) -> Iterator[str]:
    """Versions of the sentence that contradict it, of each kind one at most, in a random order of kinds."""
    kinds = [_number, _count, _opposite, _negation]
    for kind in drawn(kinds, rng):
        version = kind(sentence, passage, rng)
        if version is not None and version not in passage:
            yield version


def _number(sentence: str, passage: str, rng: random.Random) -> str | None:
    found = list(_DIGITS.finditer(sentence))
    if not found:
        return None
    match = rng.choice(found)
    value, taken = int(match[0]), set(re.findall(r"\d+", passage))
    step = 10 if value > 1500 else max(3, value // 2)
    near = [n for n in range(max(1, value - step), value + step + 1) if str(n) not in taken]
    return _swapped(sentence, match, str(rng.choice(near))) if near else None


def _count(sentence: str, passage: str, rng: random.Random) -> str | None:
    found = list(_COUNT.finditer(sentence))
    if len(found) != 1:
        return None
    free = [word for word in _COUNTS if word not in passage.lower()]
    return _swapped(sentence, found[0], rng.choice(free)) if free else None


def _opposite(sentence: str, passage: str, rng: random.Random) -> str | None:
    if _OPPOSITE.keys().isdisjoint(_LETTERS.findall(sentence)):
        return None
    found = list(_OPPOSED.finditer(sentence))
    if not found:
        return None
    match = rng.choice(found)
    other = _OPPOSITE[match[1]]
    if re.search(r"\b[Aa]n? $", sentence[: match.start()]) and (other[0] in "aeiou") != (match[1][0] in "aeiou"):
        return None  # "a valid" would become "a invalid"
    return _swapped(sentence, match, other)


def _negation(sentence: str, passage: str, rng: random.Random) -> str | None:
    if denied := _DENIED.search(sentence):
        return _swapped(sentence, denied, f" {denied[1] or denied[2]} ")
    affirmed = list(_AFFIRMED.finditer(sentence))
    if len(affirmed) != 1 or _ANY_DENIAL.search(sentence) or sentence.count(",") > 1:
        return None
    return _swapped(sentence, affirmed[0], affirmed[0][0].rstrip() + " not ").replace(" can not ", " cannot ")


def candidates(document: Document, rng: random.Random) -> Iterator[tuple[Passage, str]]:
    """Sentences of passages that stand alone, one of each passage."""
    for passage in tries(document, rng):
        if len(passage.sentences) < 2:
            continue
        for sentence in drawn(passage.sentences, rng):
            if is_clean(sentence) and 6 <= count_words(sentence) <= 35 and not _MARKUP.search(sentence):
                yield passage, sentence
                break
