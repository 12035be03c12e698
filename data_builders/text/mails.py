"""What a mail quotes and what its writer answers to it, paragraph by paragraph."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document
from data_builders.text.prose import is_plain
from instructrec.core.segmentation import count_words, unwrap

LEAST_WORDS, MOST_WORDS = 6, 80
_EMPTY_LINES = re.compile(r"\n[ \t]*\n")
_ENDS = re.compile(r"[.!?。！？…][\"”’)]*$")


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
    whole = all(_ENDS.search(part) and is_plain(part) for part in parts if part)
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
