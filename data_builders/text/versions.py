"""A text and another version of it, from two fields of one record."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_builders.cohesion import terms
from data_builders.documents import Document
from data_builders.families import Example
from data_builders.text.prose import is_finished
from instructrec.core.segmentation import count_words, words

LEAST_WORDS, MOST_NEW = 6, 12
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_INNER_CAPITAL = re.compile(r"(?<=[\w,;] )[^\W\d_a-z]\w*")


def rewritten(document: Document, version: str, most: int, shortest: float, longest: float) -> Iterator[Example]:
    """The document's text as the field `text`, and its version as the answer, if that surely says nothing else.

    It must share terms with the text and bring no number and no name. `words` are those that it has and the text has
    not, in their order: they and the `length` in words make this version the one that is asked for.

    Args:
        most: words of the text at most.
        shortest, longest: of the version, in lengths of the text.
    """
    start = len(document.title) + 2 if document.title else 0
    text, version = " ".join(document.content[start:].split()), " ".join(version.split())
    before, after = count_words(text), count_words(version)
    if before > most or not max(LEAST_WORDS, before * shortest) <= after <= before * longest:
        return
    if not (is_finished(text) and is_finished(version)):
        return
    known = set(words(text.casefold()))
    new = dict.fromkeys(word for word in words(version.casefold()) if word not in known)
    shared = terms(text) & terms(version)
    added = {*_NUMBER.findall(version), *_INNER_CAPITAL.findall(version)} - {*_NUMBER.findall(text), *words(text)}
    if len(shared) >= 2 and 3 * len(shared) >= len(terms(version)) and not added and 1 <= len(new) <= MOST_NEW:
        fields = {"text": text, "words": ", ".join(new), "length": str(after)}
        yield Example(fields, version, start, len(document.content))
