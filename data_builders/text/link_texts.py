"""Link texts: the words that are links in a passage, in order and each once."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries

# [text](target), [text][reference]; `text <target>`_ and `text`_
_MARKDOWN = re.compile(r"(?<![!\]\\])\[([^][]{2,80})\](?:\([^()\s]+\)|\[[^][]*\])")
_RST = re.compile(r"(?<![`:\w])`([^`<>]{2,80}?)(?: <[^<>\s]+>)?`__?(?!\w)")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    markdown = document.layout == "markdown"
    pattern, sign = (_MARKDOWN, "](") if markdown else (_RST, "`_")
    if sign not in document.content and not (markdown and "][" in document.content):
        return
    for passage in tries(document, rng):
        if sign not in passage.text and not (markdown and "][" in passage.text):
            continue
        found = list(dict.fromkeys(match[1] for match in pattern.finditer(passage.text)))
        # A bracket or role that is left over may be a link of another kind.
        rest = pattern.sub("", passage.text)
        if 2 <= len(found) <= 6 and not re.search(r"\]\[|\]\(|`_|:`|\w_\b(?!\w)|://|; ", rest):
            yield Example({"passage": passage.text}, "\n".join(found), passage.start, passage.end)


# Held out together: both list what is marked up in a passage.
FAMILY = Family("link_texts", group="markup", kind="text", mine=mine, extractive=True)
