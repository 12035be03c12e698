"""Function name: which of the module's own names belongs to a function whose name is hidden."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.code.functions import documented
from data_builders.documents import Document
from data_builders.families import Example, Family, with_options


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    names = sorted({function.name for function in document.functions if not function.name.startswith("__")})
    for function in documented(document, rng):
        if function.name not in names:
            continue
        hidden = re.sub(rf"\b{re.escape(function.name)}\b", "____", function.source)
        distractors = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", hidden)]
        options = with_options(function.name, distractors, rng)
        if options is not None and len(options) >= 3:
            yield Example({"code": hidden}, function.name, function.start, function.end, options)


FAMILY = Family("function_name", group="programming", kind="code", mine=mine)
