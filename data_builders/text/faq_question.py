"""FAQ question: which of the questions that a document puts as headings a paragraph answers."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, with_options
from data_builders.text.faqs import faqs, shared


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    found = faqs(document)
    for one in drawn(found, rng):
        text = one.paragraph.text
        own = shared(one.question.text, text)
        others = [other.question.text for other in found if shared(other.question.text, text) < own]
        options = with_options(one.question.text, others, rng)
        if options is not None and len(options) > 2:
            yield Example({"text": text}, one.question.text, one.question.start, one.paragraph.end, options)


# A question is a heading here, as in `section_heading`.
FAMILY = Family("faq_question", group="naming", kind="text", mine=mine)
