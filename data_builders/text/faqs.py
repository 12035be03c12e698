"""Questions that a document puts as headings, and the text below each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document
from data_builders.layout import Block
from data_builders.passages import is_clean
from instructrec.core.segmentation import count_words, sentences, words


@dataclass(frozen=True, slots=True)
class Question:
    """`reply` is the first paragraph if it has 40 words at most, else its first sentence."""

    question: Block
    paragraph: Block
    reply: str


def shared(one: str, other: str) -> int:
    """How many words of four letters or more two texts share, up to their endings."""
    stems = [{word[:5] for word in words(text.lower()) if len(word) > 3} - _COMMON for text in (one, other)]
    return len(stems[0] & stems[1])


_COMMON = {word[:5] for word in words("what when where which does will would should could have this that with from")}


@lru_cache(maxsize=1)
def faqs(document: Document) -> list[Question]:
    """The questions of a document that the paragraph below takes up by a word; each heading once."""
    found = []
    for section in document.sections:
        heading = section.heading
        if heading is None or heading.text[-1] not in "?？" or not 3 <= count_words(heading.text) <= 20:
            continue
        first = section.body[0] if section.body else None
        if first is None or first.kind != "paragraph" or not is_clean(first.text) or count_words(first.text) > 110:
            continue
        reply = first.text
        if count_words(reply) > 40:
            reply = sentences(reply, document.language or "en")[0]
        if 6 <= count_words(reply) <= 40 and is_clean(reply) and shared(heading.text, first.text):
            found.append(Question(heading, first, reply))
    names = [one.question.text.casefold() for one in found]
    return [one for one, name in zip(found, names, strict=True) if names.count(name) == 1]
