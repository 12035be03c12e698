"""Code spans: everything that a passage sets as code, in order and each once."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family
from data_builders.passages import tries
from instructrec.core.segmentation import count_words

_CODE = re.compile(r"`(?<![`:\w\\]`)(?:`([^`\n]+)``|([^`\n]+)`)(?![`_\w])")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    # In reStructuredText a single backtick is a role or a link.
    mark = "``" if document.layout in ("rst", "plain") else "`"
    if mark not in document.content:
        return
    for passage in tries(document, rng):
        text = passage.text
        if text.count(mark) < 4:
            continue
        found = list(dict.fromkeys((match[1] or match[2]).strip() for match in _CODE.finditer(text)))
        # Nothing else may be between backticks: then it is not clear what counts as code.
        rest = _CODE.sub("", text)
        if "`" in rest or (mark == "``" and re.search(r"(?<!`)`(?!`)", text)) or not 2 <= len(found) <= 10:
            continue
        named = all(any(c.isalnum() for c in one) and ", " not in one for one in found)
        if named and sum(map(count_words, found)) <= 24:
            yield Example({"passage": text}, "\n".join(found), passage.start, passage.end)


FAMILY = Family("code_spans", group="markup", kind="text", mine=mine, extractive=True)
