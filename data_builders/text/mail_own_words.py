"""Mail own words: what the writer of a mail wrote, without the lines that the mail quotes."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Iterator
from itertools import pairwise

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.text.mails import Exchange, exchanges
from instructrec.core.segmentation import count_words

MOST_WORDS = 160
WIDTH = 72


def _as_mail(exchange: Exchange) -> str:
    """The quotation under its marks, and the reply below it."""
    lines = [
        line
        for part in exchange.quoted.split("\n\n")
        for line in ("", *textwrap.wrap(part, WIDTH, break_long_words=False))
    ][1:]
    marked = "\n".join(f"> {line}".rstrip() for line in lines)
    return f"{marked}\n\n{exchange.reply}"


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = exchanges(document)
    for first in drawn(range(len(found)), rng):
        shown = found[first : first + rng.randint(1, 3)]
        message = "\n\n".join(map(_as_mail, shown))
        # With nothing of the document between them but what is quoted.
        together = all(document.content[a.end : b.start].isspace() for a, b in pairwise(shown))
        if together and count_words(message) <= MOST_WORDS:
            own = "\n\n".join(one.reply for one in shown)
            yield Example({"message": message, "parts": str(len(shown))}, own, shown[0].start, shown[-1].end)


FAMILY = Family("mail_own_words", group="mail", kind="text", mine=mine, extractive=True)
