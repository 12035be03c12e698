"""Which functions are worth an instruction: short, documented in one plain sentence, and not a stub."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import drawn
from data_builders.layout import Function
from instructrec.core.segmentation import words

_STUB = re.compile(r"^\s*(?:pass|\.\.\.|raise NotImplementedError.*|return NotImplemented)\s*$")
_EMPTY_SUMMARY = re.compile(r"deprecated|internal|todo|fixme|xxx|see |same as |like |override|helper", re.I)


def documented(document: Document, rng: random.Random, most_lines: int = 18) -> Iterator[Function]:
    """The functions of a document whose docstring's first paragraph is one sentence about code of a few lines."""
    for function in drawn(document.functions, rng):
        lines = function.source.split("\n")
        if (
            len(lines) <= most_lines
            and len(function.source) <= 900
            and 4 <= len(words(function.summary)) <= 25
            and function.summary.endswith(".")
            and not _EMPTY_SUMMARY.match(function.summary)
            and not _STUB.match(function.body)
            and len(words(function.body)) >= 4
        ):
            yield function
