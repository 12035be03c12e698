"""What readers yield: `Document`, its `Pair`s of parallel text and its way back to the bytes, and `Skipped` records."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from data_builders.layout import Block, Function, Section, blocks, functions, parse_python, sections
from data_builders.readers.formats import TEXT_LAYOUTS
from instructrec.core.language import identify

MAX_DOCUMENT_BYTES = 32 << 20
"""Bytes of one document at most: of a file that is one document, or of one record of a file of records."""

UTF8 = "utf8/1"
"""The extractor whose characters are the raw file's bytes, one UTF-8 sequence each."""


class Unreadable(Exception):
    """A file that yields no (further) document; its message is the reason under which it is counted."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """One record that yields no document, in a file that goes on.

    Attributes:
        path: as in `Document`.
        reason: under which it is counted, for instance `invalid_json`.
        start, end: place in the raw file, in the same unit as the file's documents.
    """

    path: str
    reason: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and its translation, from bytes `start..end` of the raw file."""

    source: str
    target: str
    start: int
    end: int
    context: str = ""
    """what tells apart two meanings of one source text"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the writer of a mail answers to a quotation: `quoted` without its marks, the answer at `start..end`.

    The places are characters of the document's content.
    """

    quoted: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Place:
    """Characters `start..end` of a content were made from bytes `first..last` of the raw file (ends exclusive)."""

    start: int
    end: int
    first: int
    last: int


@dataclass(frozen=True)
class Document:
    """One document of a corpus.

    Attributes:
        content: the text, as `extractor` reads it from bytes `start..end` of the raw file.
        layout: how `content` is laid out: `plain`, `markdown`, `rst`, `html`, `po`, `subtitles`, `pdf`, `commit`, or a
            programming language in lower case.
        path: relative to the corpus, with forward slashes.
        unit: what is held out as one: the file, or one topic or record of it.
        sha256: of the whole raw file; of the record itself where there is no file (a data set, a commit).
        start, end: byte range in the raw file; in the decompressed stream if the extractor's name holds `+`; numbers
            of rows if it holds `-row`.
        extractor: name and version of the rule that turned the bytes into `content`.
        licence: SPDX expression, or `unknown`.
        title: the record's own title, if it has one; `content` then opens with it and an empty line.
        declared_language: ISO 639 code that the record or file names, or null.
        page: the blocks, where the reader knows them better than `layout.blocks` would.
        places: how `content` maps to bytes, in order, where it is not one by one.
        pairs: the parallel text of a translation file.
        replies: a mail's answers to what it quotes, in order.
        paraphrase, simple, summary: the text in other, simpler or fewer words, where a field of the record holds that;
            no part of `content`.
    """

    content: str
    layout: str
    path: str
    unit: str
    sha256: str
    start: int
    end: int
    extractor: str
    licence: str
    title: str = ""
    declared_language: str | None = None
    page: tuple[Block, ...] | None = field(default=None, repr=False)
    places: tuple[Place, ...] = field(default=(), repr=False)
    pairs: tuple[Pair, ...] = field(default=(), repr=False)
    replies: tuple[Reply, ...] = field(default=(), repr=False)
    paraphrase: str = field(default="", repr=False)
    simple: str = field(default="", repr=False)
    summary: str = field(default="", repr=False)

    def __hash__(self) -> int:
        return hash((self.path, self.start))  # the generated one would hash every block

    @property
    def kind(self) -> str:
        """`text`, `code` or `commit`."""
        if self.layout == "commit":
            return "commit"
        return "text" if self.layout in TEXT_LAYOUTS else "code"

    @property
    def key(self) -> str:
        """What identifies the document in its corpus."""
        return f"{self.path}:{self.start}"

    @property
    def size(self) -> int:
        """Bytes of raw data that it was made from; of `content` where `start` and `end` count rows."""
        return len(self.content.encode()) if "-row" in self.extractor else self.end - self.start

    @cached_property
    def blocks(self) -> list[Block]:
        if self.page is not None:
            return list(self.page)
        if self.kind != "text":
            return []
        if not self.title:
            return blocks(self.content, self.layout)
        place = len(self.title) + 2
        head = Block("heading", self.title, 0, len(self.title), 1)
        return [head, *(shifted(block, place, 1) for block in blocks(self.content[place:], self.layout))]

    @cached_property
    def sections(self) -> list[Section]:
        return sections(self.blocks)

    @cached_property
    def functions(self) -> list[Function]:
        """The documented functions; Python alone is parsed so far."""
        return functions(self.content, parse_python(self.content)) if self.layout == "python" else []

    @cached_property
    def language(self) -> str | None:
        """ISO 639-1 code of the prose (docstrings in code), from its first 1,000 characters; null if under 40.

        What the record or file declares goes first.
        """
        if self.declared_language:
            return self.declared_language
        if self.kind == "code":
            prose = " ".join(function.docstring for function in self.functions[:20])
        else:
            prose = " ".join(block.text for block in self.blocks[:50] if block.kind == "paragraph")
        return identify(prose[:1000]) if len(prose) >= 40 else None

    @cached_property
    def _wide(self) -> tuple[array[int], array[int]]:
        """Where the characters beyond ASCII stand, and how many bytes beyond one they take up to each."""
        codes = np.frombuffer(self.content.encode("utf-32-le"), np.uint32)
        places = np.flatnonzero(codes > 0x7F)
        extra = np.cumsum(1 + (codes[places] > 0x7FF) + (codes[places] > 0xFFFF))
        # Looked up one by one, which an array of NumPy's is slow at.
        return array("q", places.astype(np.int64).tobytes()), array("q", extra.astype(np.int64).tobytes())

    def _byte(self, character: int) -> int:
        """The byte of the content's UTF-8 at which a character begins."""
        if self.content.isascii():
            return character
        places, extra = self._wide
        before = bisect_left(places, character)
        return character + (extra[before - 1] if before else 0)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The byte range in the raw file of characters `start..end` of `content`.

        Where characters do not map to bytes one by one it is the range of the blocks that hold them, or else the
        document's whole range.
        """
        if self.extractor == UTF8:
            return self.start + self._byte(start), self.start + self._byte(end)
        touched = self.places[
            bisect_right(self.places, start, key=lambda place: place.end) : bisect_left(
                self.places, max(end, start + 1), key=lambda place: place.start
            )
        ]
        return (touched[0].first, touched[-1].last) if touched else (self.start, self.end)


def shifted(block: Block, by: int, deeper: int = 0) -> Block:
    """`block` of a part of a content, placed in the whole; headings go `deeper` levels down."""
    level = block.level + deeper if block.level else 0
    return block._replace(start=block.start + by, end=block.end + by, level=level)


def with_title(title: str, text: str) -> tuple[str, str]:
    """(content, title) of a record: the title on one line above the text, unless the text opens with it already."""
    title = " ".join(title.split())
    if not title or text.lstrip("#=*- \n").split("\n", 1)[0].rstrip("#=*: \r") == title:
        return text, ""
    return f"{title}\n\n{text}", title


def language_code(value: str) -> str | None:
    """The language of a tag such as `zh_CN` or `en-GB`; null for what is no tag."""
    primary = value.strip().replace("_", "-").split("-")[0].lower()
    return primary if 2 <= len(primary) <= 3 and primary.isascii() and primary.isalpha() else None


def page_content(texts: Sequence[tuple[str, str, int]]) -> tuple[str, tuple[Block, ...]]:
    """Lay (kind, text, level) out as a content with an empty line between blocks, and say where each stands."""
    page, place = [], 0
    for kind, text, level in texts:
        page.append(Block(kind, text, place, place + len(text), level))
        place += len(text) + 2
    return "\n\n".join(text for _, text, _ in texts), tuple(page)


def byte_places(raw: str, first: int, page: Sequence[Block], ranges: Iterable[tuple[int, int]]) -> tuple[Place, ...]:
    """Where each block of `page` stands in the raw file.

    Args:
        raw: the file's text, whose first character is its byte `first`.
        ranges: for each block, in order and without overlap, the characters of `raw` that it was read from.
    """
    places, character, byte = [], 0, first
    for block, (start, end) in zip(page, ranges, strict=True):
        byte += len(raw[character:start].encode())
        last = byte + len(raw[start:end].encode())
        places.append(Place(block.start, block.end, byte, last))
        character, byte = end, last
    return tuple(places)
