"""Lists of a page: flat, bulleted or numbered, with the paragraph that introduces them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from data_builders.documents import Document
from data_builders.layout import Block
from instructrec.core.segmentation import count_words, unwrap

LEAST_ITEMS, MOST_ITEMS = 3, 12
MOST_ITEM_WORDS, MOST_LIST_WORDS = 40, 200

_ITEM = re.compile(r"([ \t]*)([-*+•]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)]|#\.)[ \t]+(\S.*)")
_NOT_TEXT = re.compile(r"::$|://|^[-*+•|] |^\W*$|^\[.\] |[{}<>]{2}|\]: |^\[[^]]*\]\([^)]*\)$|`_$")
_LEAD_IN = re.compile(r"[\w`*\"“‘(].*[^:：][:：]$", re.S)
_ENUMERATOR = re.compile(r"\w+")
_STEP = re.compile(r"\d|#")


@dataclass(frozen=True)
class ItemList:
    """A list whose items are distinct single lines; `start`/`end` are characters of the content, with the introduction.

    Attributes:
        numbered: whether the page numbers the items.
        introduction: the paragraph before the list if it ends in a colon, else empty.
    """

    items: tuple[str, ...]
    numbered: bool
    introduction: str
    start: int
    end: int

    @property
    def text(self) -> str:
        """The list as bullets."""
        return "\n".join(f"- {item}" for item in self.items)


@lru_cache(maxsize=1)
def lists(document: Document) -> list[ItemList]:
    """The lists of a document that can be told apart from nested lists and from text around them."""
    return list(_lists(document))


def _lists(document: Document) -> Iterator[ItemList]:
    html = document.layout == "html"
    page = document.blocks
    i = 0
    while i < len(page):
        if page[i].kind != "list":
            i += 1
            continue
        first = i
        while i < len(page) and page[i].kind == "list" and (i == first or not html):
            i += 1
        # What follows, if it is indented, belongs to the last item: then the list is not all that is here.
        if i < len(page) and not html and document.content[page[i].start] in " \t":
            continue
        parsed = _bare(page[first]) if html else _items(page[first:i])
        if parsed is None or not _is_usable(parsed[0]):
            continue
        before = page[first - 1] if first else None
        introduction = ""
        if before is not None and before.kind == "paragraph" and _LEAD_IN.match(before.text):
            introduction = before.text if count_words(before.text) <= 60 else ""
        start = before.start if before is not None and introduction else page[first].start
        yield ItemList(tuple(parsed[0]), parsed[1], introduction, start, page[i - 1].end)


def _bare(block: Block) -> tuple[list[str], bool]:
    """An HTML reader's list has an item a line and no marks."""
    return block.text.split("\n"), False


def _items(blocks: list[Block]) -> tuple[list[str], bool] | None:
    """(items, whether numbered) of the blocks of one list; null if they are not one flat list."""
    items: list[list[str]] = []
    marks: list[str] = []
    indent = None
    for line in (line for block in blocks for line in block.text.split("\n")):
        match = _ITEM.match(line)
        if match is None:
            if not items or not line.startswith((" ", "\t")):
                return None
            items[-1].append(line)
            continue
        if indent not in (None, match[1]):
            return None
        indent = match[1]
        marks.append(match[2])
        items.append([match[3]])
    if _STEP.search(marks[0]):
        numbers = [mark.strip("().") for mark in marks]
        if numbers not in ([str(n) for n in range(1, len(marks) + 1)], ["1"] * len(marks), ["#"] * len(marks)):
            return None
    elif not _ENUMERATOR.search(marks[0]) and len(set(marks)) > 1:
        return None
    return [unwrap("\n".join(lines)) for lines in items], bool(_STEP.search(marks[0]))


def _is_usable(items: list[str]) -> bool:
    return (
        LEAST_ITEMS <= len(items) <= MOST_ITEMS
        and len({item.casefold() for item in items}) == len(items)
        and sum(len(item) for item in items) < 12 * MOST_LIST_WORDS
        and not any(_NOT_TEXT.search(item) for item in items)
        and all(any(c.isalpha() for c in item) and count_words(item) <= MOST_ITEM_WORDS for item in items)
        and sum(count_words(item) for item in items) <= MOST_LIST_WORDS
    )
