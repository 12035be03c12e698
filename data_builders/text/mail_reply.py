"""Mail reply: which of a mail's replies answers one of the parts that it quotes."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.cohesion import outdone
from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.text.mails import exchanges


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = [one for one in exchanges(document) if "\n\n" not in one.reply]
    for one in drawn(found, rng):
        # The others answer other quotations, and take up less than half as many words of this one.
        others = outdone([other.reply for other in found], one.reply, one.quoted, set())
        options = with_options(one.reply, others, rng)
        if options is not None and len(options) >= 3:
            yield Example({"quoted": one.quoted}, one.reply, one.start, one.end, options)


# As `next_turn`, of mails.
FAMILY = Family("mail_reply", group="coherence", kind="text", mine=mine)
