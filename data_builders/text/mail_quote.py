"""Mail quote: which of the parts that a mail quotes a reply answers; the inverse of `mail_reply`."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.cohesion import outdone
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.text.mails import exchanges


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = [one for one in exchanges(document) if "\n\n" not in one.quoted]
    for one in drawn(found, rng):
        others = outdone([other.quoted for other in found], one.quoted, one.reply, set())
        options = with_options(one.quoted, others, rng)
        if options is not None and len(options) >= 3:
            yield Example({"reply": one.reply}, one.quoted, one.start, one.end, options)


# Computed, because a document does not hold what its mail quotes.
FAMILY = Family("mail_quote", group="coherence", kind="text", mine=mine, computed=True)
