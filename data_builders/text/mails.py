"""What a mail quotes and what its writer answers to it, paragraph by paragraph."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from data_builders.cohesion import outdone
from data_builders.documents import Document
from data_builders.families import Example, drawn, with_options
from data_builders.text.prose import is_finished
from instructrec.core.segmentation import count_words, unwrap

LEAST_WORDS, MOST_WORDS = 6, 80
_EMPTY_LINES = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A quotation and the reply to it, unwrapped; `start`/`end` are the reply's characters of the content."""

    quoted: str
    reply: str
    start: int
    end: int


def _prose(text: str) -> str | None:
    """Paragraphs with an empty line between them; null for what is not all prose, or too short or long."""
    parts = [unwrap(part).strip() for part in _EMPTY_LINES.split(text)]
    joined = "\n\n".join(part for part in parts if part)
    whole = all(is_finished(part) for part in parts if part)
    indented = any(line.startswith(("  ", "\t")) for line in text.split("\n"))
    return joined if whole and not indented and LEAST_WORDS <= count_words(joined) <= MOST_WORDS else None


@lru_cache(maxsize=1)
def exchanges(document: Document) -> list[Exchange]:
    """The quotations and replies of a mail that are prose, in order."""
    return list(_exchanges(document))


def _exchanges(document: Document) -> Iterator[Exchange]:
    for one in document.replies:
        quoted, reply = _prose(one.quoted), _prose(document.content[one.start : one.end])
        if quoted and reply:
            yield Exchange(quoted, reply, one.start, one.end)


Half = Literal["quoted", "reply"]


def matched(document: Document, rng: random.Random, answer: Half, given: Half) -> Iterator[Example]:
    """Which of the mail's halves of one kind goes with a half of the other kind, the field `given`.

    Only answers of one paragraph; the others take up less than half as many words of what is given.
    """
    halves = [(getattr(one, answer), getattr(one, given), one) for one in exchanges(document)]
    found = [half for half in halves if "\n\n" not in half[0]]
    for right, shown, one in drawn(found, rng):
        options = with_options(right, outdone([other for other, *_ in found], right, shown, set()), rng)
        if options is not None and len(options) >= 3:
            yield Example({given: shown}, right, one.start, one.end, options)
