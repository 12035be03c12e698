"""HTML and XHTML → blocks with their bytes.

A tokenizer of our own, because a block has to lead back to its bytes, which tree builders forget, and because
`html.parser` is slower than all of the mining and quadratic on hostile pages. Every step here goes forward only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

from data_builders.readers.document import Document, Unreadable, byte_places, page_content
from data_builders.readers.files import whole_text
from instructrec.core.segmentation import unwrap

EXTRACTOR = "html/1"

_BOILERPLATE = {
    *("nav", "footer", "noscript", "template", "svg", "math", "button", "select", "form", "iframe", "object"),
    *("audio", "video"),
}
_RAW = {"script", "style", "textarea", "title"}
"""Elements whose content is not markup."""
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = {"ul", "ol", "dl", "menu"}
_ITEMS = {"li", "dt", "dd"}
_CELLS = {"td", "th"}
_BREAKS = {
    *("p", "div", "section", "article", "main", "header", "aside", "blockquote", "figure", "figcaption", "address"),
    *("hr", "body", "html", "head", "details", "summary", "fieldset", "center", "caption", "thead", "tbody", "tfoot"),
}
_VOID = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"),
}
_TAG = re.compile(r"""<(/?)([a-zA-Z][\w:-]*+)([^>"']*+(?:(?:"[^"]*+"|'[^']*+')[^>"']*+)*+)>""")
_SLOPPY_TAG = re.compile(r"<(/?)([a-zA-Z][\w:-]*+)([^<>]*+)>")
_ENDS = {name: re.compile(f"</{name}", re.I) for name in _RAW}
_MOST_UNCLOSED = 16
_LINK_SHARE = 0.6
"""A paragraph or list with more of its characters in links is navigation."""


def _tokens(html: str) -> Iterator[tuple[int, int, str, str, bool]]:
    """(start, end, name, text, empty): name `""` for text, `title` with its text, `/p` for an end tag."""
    place, size, unclosed = 0, len(html), 0
    xml = html.lstrip().startswith("<?xml")
    while place < size:
        start = html.find("<", place)
        if start < 0:
            start = size
        if start > place:
            yield place, start, "", html[place:start], False
        if start == size:
            return
        following = html[start + 1 : start + 2]
        if following in ("!", "?"):
            place = _after_declaration(html, start)
            continue
        # A quote that never closes makes the strict pattern run to the end: tolerated a few times, not for every tag.
        tag = _TAG.match(html, start) if unclosed < _MOST_UNCLOSED else None
        if tag is None and (following.isalpha() or following == "/"):
            unclosed += 1
            tag = _SLOPPY_TAG.match(html, start)
        if tag is None:
            yield start, start + 1, "", "<", False
            place = start + 1
            continue
        place = tag.end()
        name = tag[2].lower()
        empty = name in _VOID or (xml and tag[3].endswith("/"))
        if name in _RAW and not tag[1] and not empty:
            end = _ENDS[name].search(html, place)
            close = end.start() if end else size
            if name == "title":
                yield place, close, "title", html[place:close], True
            place = html.find(">", close) + 1 or size
            continue
        yield start, place, f"{tag[1]}{name}", "", empty


def _after_declaration(html: str, start: int) -> int:
    """The place after a comment, CDATA section, doctype or processing instruction; the end of the page if open."""
    for opening, closing in (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<", ">")):
        if html.startswith(opening, start):
            end = html.find(closing, start + len(opening))
            return end + len(closing) if end >= 0 else len(html)
    return len(html)


class _Page:
    """Collects blocks while tokens go by: one open block of text at a time, which any block-level tag closes."""

    def __init__(self) -> None:
        self.blocks: list[tuple[str, str, int, int, int]] = []
        """(kind, text, level, start, end), places as characters of the page"""
        self.title: tuple[str, int, int] | None = None
        self.parts: list[str] = []
        self.start = self.end = self.link = self.level = 0
        self.skipped, self.depth = "", 0
        self.in_link = self.in_heading = False
        self.lists = self.tables = self.pre = 0
        self.rows: list[list[str]] = [[]]
        """of the open list or table, by cell; a list's rows have one"""
        self.last_heading = -1
        """by number of blocks"""
        self.headers: list[int] = []
        self.mains: list[int] = []
        """where `<main>` opens and closes, by number of blocks"""

    def token(self, start: int, end: int, name: str, text: str, empty: bool) -> None:
        if self.skipped:
            if name in (self.skipped, f"/{self.skipped}") and not empty:
                self.depth += -1 if name[0] == "/" else 1
                if not self.depth:
                    self.skipped = ""
        elif not name:
            self.text(text, start)
        elif name == "title":
            self.title = self.title or (unescape(text), start, end)
        elif name[0] == "/":
            self.close(name[1:], end)
        elif name in _BOILERPLATE:
            self.flush()
            if not empty:
                self.skipped, self.depth = name, 1
        else:
            self.open(name, start, empty)

    def text(self, text: str, start: int) -> None:
        if not self.parts:
            if text.isspace() and not self.pre:
                return
            if not self.lists + self.tables:
                self.start = start + len(text) - len(text.lstrip())
        self.parts.append(text)
        if kept := len(text.rstrip()):
            self.end = start + kept
        if self.in_link:
            self.link += len(text)

    def open(self, name: str, start: int, empty: bool) -> None:
        if name == "a":
            self.in_link = not empty
        elif name == "br":
            self.parts.append("\n")
        elif name in _HEADINGS:
            self.block()
            self.level, self.in_heading = _HEADINGS[name], True
        elif name in _LISTS or name == "table":
            if self.lists + self.tables:
                self.row()
            else:
                self.block()
                self.start = start
            if name == "table":
                self.tables += not empty
            else:
                self.lists += not empty
        elif self.lists + self.tables and (name in _ITEMS or name == "tr"):
            self.row()
        elif self.lists + self.tables and name in _CELLS:
            self.cell()
        elif name == "pre":
            if not self.lists + self.tables:
                self.block()
            self.pre += not empty
        elif name in _BREAKS or name in _ITEMS or name in _CELLS or name == "tr":
            self.flush()
            if name == "header" and not empty:
                self.headers.append(len(self.blocks))
            elif name == "main" and not len(self.mains) % 2:
                self.mains.append(len(self.blocks))

    def close(self, name: str, end: int) -> None:
        if name == "a":
            self.in_link = False
        elif name in _HEADINGS:
            self.block()
        elif name in _LISTS or name == "table":
            self.cell()
            if name == "table":
                self.tables = max(0, self.tables - 1)
            else:
                self.lists = max(0, self.lists - 1)
            if not self.lists + self.tables and (self.rows != [[]]):
                self.collection("table" if name == "table" else "list")
        elif name == "pre" and self.pre:
            if not self.lists + self.tables:
                self.block()
            self.pre -= 1
        elif name in _BREAKS or name in _ITEMS:
            self.flush()
            if name == "main" and len(self.mains) % 2:
                self.mains.append(len(self.blocks))
            if name == "header" and self.headers:
                first = self.headers.pop()
                if self.last_heading < first:
                    del self.blocks[first:]

    def flush(self) -> None:
        """A block-level tag: the end of a block, or only white space inside a list or table."""
        if self.lists + self.tables:
            if self.parts and not self.pre:
                self.parts.append(" ")
        elif not self.pre:
            self.block()

    def cell(self) -> None:
        """Close the open cell of a table or item of a list."""
        if text := " ".join(unescape("".join(self.parts)).split()):
            self.rows[-1].append(text)
        self.parts = []

    def row(self) -> None:
        """Close the open row of a table or item of a list."""
        self.cell()
        if self.rows[-1]:
            self.rows.append([])

    def collection(self, kind: str) -> None:
        """Close the open list or table."""
        self.cell()
        self.add(kind, "\n".join(" | ".join(row) for row in self.rows if row))
        self.rows = [[]]

    def block(self) -> None:
        """Close the open block, if it holds anything."""
        if self.lists + self.tables:  # a heading in a table that is there for its layout, or a list never closed
            self.lists = self.tables = 0
            self.collection("list")
        text = unescape("".join(self.parts))
        self.parts = []
        if self.pre:
            self.add("code", text.strip("\n").rstrip())
        else:
            kind = "heading" if self.in_heading else "paragraph"
            self.add(kind, _one_line(text), self.level if self.in_heading else 0)
        self.in_heading = False

    def add(self, kind: str, text: str, level: int = 0) -> None:
        navigation = kind in ("paragraph", "list") and self.link > _LINK_SHARE * len(text)
        self.link = 0
        if text and not navigation:
            if kind == "heading":
                self.last_heading = len(self.blocks)
            self.blocks.append((kind, text, level, self.start, max(self.start, self.end)))


def _one_line(text: str) -> str:
    if "\n" in text and not text.isascii():
        # No space comes between Han characters.
        return unwrap("\n".join(line for line in text.split("\n") if not line.isspace()))
    return " ".join(text.split())


def page_blocks(html: str) -> list[tuple[str, str, int, int, int]]:
    """The blocks of a page as (kind, text, level, start, end), places as characters of `html`.

    Kinds and texts are those of `layout.Block`. Left out: scripts, styles, forms, navigation, footers, headers without
    a heading, paragraphs or lists made of links, and what stands beside `<main>`. A page without
    headings gets its `<title>`.
    """
    page = _Page()
    for token in _tokens(html):
        page.token(*token)
    page.block()
    if page.mains:
        ends = [*page.mains, len(page.blocks)]
        inside = [page.blocks[first:last] for first, last in zip(ends[::2], ends[1::2], strict=False)]
        page.blocks = [block for part in inside for block in part] or page.blocks
    if page.title and all(kind != "heading" for kind, *_ in page.blocks):
        text, start, end = page.title
        if line := _one_line(text):
            page.blocks.insert(0, ("heading", line, 1, start, end))
    return page.blocks


def read_html(path: Path, name: str, licence: str) -> Iterator[Document]:
    """Yield one document, whose content is the text of the page's blocks.

    Raises:
        Unreadable: as `files.whole_text`, or `no_text`.
    """
    whole = whole_text(path)
    found = page_blocks(whole.content)
    if not found:
        raise Unreadable("no_text")
    content, page = page_content([(kind, text, level) for kind, text, level, _, _ in found])
    yield whole.document(
        path,
        name,
        licence,
        content,
        "html",
        EXTRACTOR,
        page=page,
        places=byte_places(whole.content, whole.start, page, ((start, end) for *_, start, end in found)),
    )
