"""The block of `Name: value` lines that opens a document: the fields of a mail, a proposal or of front matter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document

LEAST_FIELDS, MOST_CHARACTERS = 3, 1500

_FIELD = re.compile(r"([^\W\d_][\w -]{0,30}):[ \t]+(\S.*)")


@dataclass(frozen=True)
class Header:
    """The fields in order, the lines as they stand, and the character of the content at which they end."""

    fields: dict[str, str]
    text: str
    end: int


@lru_cache(maxsize=1)
def header_of(document: Document) -> Header | None:
    """The fields that open a document, each on its lines; null if it opens with anything else."""
    content = document.content
    first = 4 if content.startswith("---\n") else 0
    end = content.find("\n---\n" if first else "\n\n", first)
    if document.title or not 0 < end - first <= MOST_CHARACTERS:
        return None
    fields: dict[str, str] = {}
    name = ""
    for line in content[first:end].split("\n"):
        match = _FIELD.fullmatch(line.rstrip())
        if match:
            name = match[1]
            if name in fields:
                return None
            fields[name] = match[2]
        elif name and line.startswith((" ", "\t")) and line.strip():
            fields[name] += f" {line.strip()}"
        else:
            return None
    return Header(fields, content[first:end], end) if len(fields) >= LEAST_FIELDS else None


def is_open(value: str) -> bool:
    """Whether a field's value can be asked for: no address, which the privacy gate may hide."""
    return "@" not in value and "://" not in value and " at " not in value
