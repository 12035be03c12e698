"""Commands of a page and what they do: an item that ends in a colon, and below it one span of code (as in tldr)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document

_DESCRIPTION = re.compile(r"[-*] +(\S.*)[:：]")
_COMMAND = re.compile(r"`([^`\n]+)`")
_PLACE = re.compile(r"\{\{(.*?)\}\}")
_KEY = re.compile(r"\[\w{1,3}\]")


@dataclass(frozen=True)
class Command:
    """`start`/`end` are characters of the content, of description and command together."""

    description: str
    command: str
    start: int
    end: int


@lru_cache(maxsize=1)
def commands(document: Document) -> list[Command]:
    """The described commands of a document, without the marks around what is to be filled in."""
    found = []
    for item, code in zip(document.blocks, document.blocks[1:], strict=False):
        if item.kind != "list" or code.kind not in ("paragraph", "code"):
            continue
        described, command = _DESCRIPTION.fullmatch(item.text), _COMMAND.fullmatch(code.text.strip())
        if described and command:
            text = _PLACE.sub(r"\1", command[1])
            # Some pages mark the letter of a flag inside a word: [c]reate.
            if "{{" not in text + described[1] and not _KEY.search(described[1]):
                found.append(Command(described[1], text, item.start, code.end))
    return found
