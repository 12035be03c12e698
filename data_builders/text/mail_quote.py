"""Mail quote: which of the parts that a mail quotes a reply answers; the inverse of `mail_reply`."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.mails import matched


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    return matched(document, rng, answer="quoted", given="reply")


# Computed, because a document does not hold what its mail quotes.
FAMILY = Family("mail_quote", group="coherence", kind="text", mine=mine, computed=True)
