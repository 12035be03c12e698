"""Mail reply: which of a mail's replies answers one of the parts that it quotes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.text.mails import matched


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    return matched(document, rng, answer="reply", given="quoted")


# As `next_turn`, of mails.
FAMILY = Family("mail_reply", group="coherence", kind="text", mine=mine)
