"""The layout of a page: headings, paragraphs, lists, code and tables, each with its place; functions of source code.

One line-based reader serves plain text, Markdown and reStructuredText, because a corpus mixes them and full parsers
cost more than all of the mining. Hard-wrapped lines are joined; code and tables are kept apart and
never mined as prose.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass
from typing import NamedTuple

from instructrec.core.segmentation import unwrap, words

# Possessive repeats keep nothing to go back to: a page of ten million lines or backticks costs no memory and no square.
_CHUNK = re.compile(r"(?:^[^\n]*\S[^\n]*(?:\n|\Z))++", re.M)
_FENCE = re.compile(r"^ {0,3}(`{3,}+|~{3,}+)[^\n]*+\n.*?(?:^ {0,3}\1[`~]*[ \t]*(?:\n|\Z)|\Z)", re.M | re.S)
_RETURN = re.compile(r"\r(?!\n)")
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_ATX = re.compile(r"(#{1,6})[ \t]+([^ \t].*)")
_ADORNMENT = re.compile(r"^([=\-~^\"'*+#`:.<>_])\1{2,}[ \t]*$")
_RULES = frozenset("=-~^\"'*+#`:.<>_")
_RULE_BELOW = re.compile(r"[^\n]*\n[=\-~^\"'*+#`:.<>_]")
_AFTER_LETTER = frozenset(".)")
_LIST = re.compile(r"^\s*(?:[-*+•]|\(?\d{1,3}[.)]|[a-zA-Z][.)])\s+\S")
_TABLE = re.compile(r"^\s*(?:\||\+[-=]+\+|={2,}\s+={2,})")
_MARKUP_LINE = re.compile(r"^\s*(?:\.\. |:[\w ]+:|<[/!a-zA-Z]|\{\{|\$ |>>> )")
_PROSE_END = re.compile(r"[.!?:。！？：…][\"'”’)\]]*$")
_CODE_CHARACTERS = re.compile(r"[={}<>\\|;$]|\w\(\)|::")


class Block(NamedTuple):
    """A block of a page; `start`/`end` are character offsets in the content, `text` is unwrapped and single-line."""

    kind: str
    """`heading`, `paragraph`, `list`, `code` or `table`"""
    text: str
    start: int
    end: int
    level: int = 0
    """1 is the outermost heading; 0 for everything else"""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and the blocks up to the next heading. The blocks before the first heading have a null heading."""

    heading: Block | None
    body: tuple[Block, ...]

    @property
    def paragraphs(self) -> list[Block]:
        return [block for block in self.body if block.kind == "paragraph"]


@dataclass(frozen=True, slots=True)
class Function:
    """A documented function: dedented `source` with its docstring, `start`/`end` as characters of the content."""

    name: str
    signature: str
    docstring: str
    body: str
    start: int
    end: int

    @property
    def source(self) -> str:
        """Signature and body, without the docstring."""
        return f"{self.signature}\n{self.body}"

    @property
    def summary(self) -> str:
        """The docstring's first paragraph, unwrapped."""
        return unwrap(self.docstring.strip().split("\n\n")[0])


def _is_prose(text: str) -> bool:
    """Whether an indented block reads as prose rather than code."""
    return (
        len(words(text)) >= 8
        and bool(_PROSE_END.search(text))
        and len(_CODE_CHARACTERS.findall(text)) * 60 < len(text)
        and not _MARKUP_LINE.match(text)
    )


class _Reader:
    """Reads blocks in order; reStructuredText gives heading levels by the order in which adornments first appear."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.adornments: list[str] = []
        self.blocks: list[Block] = []

    def add(self, kind: str, text: str, start: int, end: int, level: int = 0) -> None:
        if text:
            self.blocks.append(Block(kind, text, start, end, level))

    def level(self, adornment: str) -> int:
        if self.layout == "markdown":
            return 1 if adornment[0] == "=" else 2
        if adornment not in self.adornments:
            self.adornments.append(adornment)
        return self.adornments.index(adornment) + 1

    def chunk(self, text: str, start: int) -> None:
        """One run of lines without a blank line among them: headings, then at most one block of another kind."""
        place = 0
        while place < len(text) and (heading := self.heading(text, place)):
            title, level, end = heading
            self.add("heading", title, start + place, start + end, level)
            place = end
        if text := text[place:].rstrip():
            self.body(text, start + place, start + place + len(text))

    def heading(self, text: str, place: int) -> tuple[str, int, int] | None:
        """(title, level, place after its last line) if a heading begins at `place`."""
        second = text.find("\n", place) + 1 or len(text)
        if text[place] not in _RULES and text[second : second + 1] not in _RULES:
            return None
        third = text.find("\n", second) + 1 or len(text)
        fourth = text.find("\n", third) + 1 or len(text)
        line, below = text[place:second].rstrip(), text[second:third].rstrip()
        first = line.lstrip()
        if self.layout == "markdown" and (match := _ATX.match(line)):
            return match[2].rstrip("#").rstrip(" \t") or "#", len(match[1]), second
        if not _ADORNMENT.match(first) and _is_adornment(below, first):
            return first, self.level(below.lstrip()[0]), third
        if self.layout != "markdown" and _is_adornment(first, below.lstrip()) and text[third:fourth].strip() == first:
            return below.lstrip(), self.level(first[0] * 2), fourth
        return None

    def body(self, text: str, start: int, end: int) -> None:
        if _TABLE.match(text):
            return self.add("table", text, start, end)
        if _LIST.match(text):
            return self.add("list", text, start, end)
        indented = text.startswith(("   ", "\t"))
        if _MARKUP_LINE.match(text):
            return self.add("code", text, start, end)
        joined = unwrap(text)
        if indented and not (self.layout != "markdown" and _is_prose(joined)):
            return self.add("code", text, start, end)
        self.add("paragraph", joined, start, end)


def _is_adornment(line: str, title: str) -> bool:
    """Whether `line` underlines `title`: one punctuation character repeated, about as long, under a short title."""
    line = line.rstrip()
    return bool(_ADORNMENT.match(line)) and 0 < len(title) <= 100 and len(line) >= min(len(title), 4)


def blocks(content: str, layout: str) -> list[Block]:
    """The blocks of a page in order. `layout` is `plain`, `markdown` or `rst`."""
    reader = _Reader(layout)
    place = 0
    raw: list[tuple[int, int]] = []
    if layout == "markdown" and ("```" in content or "~~~" in content):
        raw += [match.span() for match in _FENCE.finditer(content)]
    if layout == "markdown" and "<!--" in content:
        # No further than the last end of a comment: each open one would be looked for up to the end of the page.
        raw += [match.span() for match in _COMMENT.finditer(content, 0, content.rfind("-->") + 3)]
    for start, end in [*sorted(raw), (len(content), len(content))]:
        if start < place:
            continue
        for match in _CHUNK.finditer(content, place, start):
            text, first = match[0], match.start()
            if text[0].isalpha() and text[1:2] not in _AFTER_LETTER and not _RULE_BELOW.match(text):
                # Most of a page: nothing but a paragraph opens with two letters above a line that is no rule.
                reader.blocks.append(Block("paragraph", unwrap(text), first, first + len(text.rstrip())))
            else:
                reader.chunk(text, first)
        if end > start:
            reader.add("code", content[start:end], start, end)
        place = end
    return reader.blocks


def sections(page: list[Block]) -> list[Section]:
    """Cut the blocks of a page at its headings."""
    found: list[Section] = []
    heading: Block | None = None
    body: list[Block] = []
    for block in page:
        if block.kind == "heading":
            if heading is not None or body:
                found.append(Section(heading, tuple(body)))
            heading, body = block, []
        else:
            body.append(block)
    if heading is not None or body:
        found.append(Section(heading, tuple(body)))
    return found


def parse_python(content: str) -> ast.Module:
    """The syntax tree of Python source, without the compiler's warnings about it.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: the source does not parse.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(content)


def python_lines(content: str) -> list[str]:
    """The lines as Python counts them: a carriage return alone ends one too. Each is followed by one character."""
    return (_RETURN.sub("\n", content) if "\r" in content else content).split("\n")


def functions(content: str, tree: ast.Module) -> list[Function]:
    """The documented functions and methods of Python source and its tree, in order."""
    lines = python_lines(content)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    lines = [line.removesuffix("\r") for line in lines]
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or len(node.body) < 2:
            continue
        docstring = ast.get_docstring(node)
        first, second = node.body[0], node.body[1]
        # A body on the line of its docstring or decorated oddly is not worth the care that cutting it would take.
        last = node.end_lineno or node.lineno
        if not docstring or second.lineno <= (first.end_lineno or 0) or first.lineno <= node.lineno:
            continue
        dedented = textwrap.dedent("\n".join(lines[node.lineno - 1 : last])).split("\n")
        head = first.lineno - node.lineno
        body = (first.end_lineno or first.lineno) - node.lineno + 1
        found.append(
            Function(
                name=node.name,
                signature="\n".join(dedented[:head]).rstrip(),
                docstring=docstring,
                body="\n".join(dedented[body:]).strip("\n").rstrip(),
                start=starts[node.lineno - 1],
                end=min(starts[last], len(content)),
            )
        )
    return sorted(found, key=lambda function: function.start)
