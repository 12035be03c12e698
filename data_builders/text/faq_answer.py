"""FAQ answer: which of the document's replies belongs to a question that it puts as a heading."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.text.faqs import faqs, shared


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = faqs(document)
    for one in drawn(found, rng):
        question = one.question.text
        own = shared(question, one.reply)
        others = [other.reply for other in found if shared(question, other.reply) < own]
        options = with_options(one.reply, others, rng)
        if options is not None and len(options) > 2:
            yield Example({"question": question}, one.reply, one.question.start, one.paragraph.end, options)


# Its inverse is the choice of a heading for a passage, as `section_heading` is.
FAMILY = Family("faq_answer", group="naming", kind="text", mine=mine)
