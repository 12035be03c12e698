"""Files → `Document`: text with its place in the raw bytes. What is unreadable is counted and stops nothing."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import py3langid

from data_builders.layout import Block, Function, Section, blocks, functions, parse_python, sections
from instructrec.core.errors import UserError

PYTHON = "python"
"""The name of the default corpus: the documentation and code that every Python installation carries."""

FORMATS = {
    "": "plain",
    ".txt": "plain",
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "rst",
    ".py": "python",
}
"""Suffix → layout."""

_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "dist-packages"}
_PYTHON_SKIPPED_FOLDERS = _SKIPPED_FOLDERS | {"test", "tests", "idle_test", "ensurepip", "lib-dynload"}


class Unreadable(Exception):
    """A file that yields no document; its message is the reason under which it is counted."""


@dataclass(frozen=True)
class Document:
    """One document of a corpus.

    Attributes:
        content: the text, as `extractor` reads it from bytes `start..end` of the raw file.
        layout: one of the values of `FORMATS`.
        kind: `text` or `code`.
        path: relative to the corpus, with forward slashes.
        unit: what is held out as one: the file, or one topic of a file of topics.
        sha256: of the whole raw file.
        start, end: byte range in the raw file.
        extractor: name and version of the rule that turned the bytes into `content`.
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

    @property
    def kind(self) -> str:
        return "code" if self.layout == "python" else "text"

    @property
    def key(self) -> str:
        """What identifies the document in its corpus."""
        return f"{self.path}:{self.start}"

    @cached_property
    def blocks(self) -> list[Block]:
        return blocks(self.content, self.layout) if self.kind == "text" else []

    @cached_property
    def sections(self) -> list[Section]:
        return sections(self.blocks)

    @cached_property
    def functions(self) -> list[Function]:
        return functions(self.content, parse_python(self.content)) if self.kind == "code" else []

    @cached_property
    def language(self) -> str | None:
        """ISO 639-1 code of the prose (docstrings in code), from its first 1,000 characters; null if under 40."""
        if self.kind == "code":
            prose = " ".join(function.docstring for function in self.functions[:20])
        else:
            prose = " ".join(block.text for block in self.blocks[:50] if block.kind == "paragraph")
        return py3langid.classify(prose[:1000])[0] if len(prose) >= 40 else None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The byte range in the raw file of characters `start..end` of `content`.

        Where characters do not map to bytes one by one (string literals), it is the document's whole range.
        """
        if self.extractor != UTF8:
            return self.start, self.end
        first = self.start + len(self.content[:start].encode())
        return first, first + len(self.content[start:end].encode())


UTF8 = "utf8/1"
LITERAL = "python-literal/1"
MIN_DOCSTRING = 200
"""Characters from which a docstring is a document of its own."""


def corpus_files(corpus: str) -> list[tuple[Path, str]]:
    """The files of a corpus as (place, relative name), sorted by name.

    Args:
        corpus: a folder, a file, or `PYTHON`.

    Raises:
        UserError: nothing is there, or it holds no file.
    """
    if corpus == PYTHON:
        root, skipped = Path(sysconfig.get_path("stdlib")), _PYTHON_SKIPPED_FOLDERS
    else:
        root, skipped = Path(corpus), _SKIPPED_FOLDERS
        if root.is_file():
            return [(root, root.name)]
        if not root.is_dir():
            raise UserError(f"corpus {corpus!r}: no such folder; give --corpus an existing one")
    files = []
    for folder, names, filenames in os.walk(root):
        names[:] = sorted(name for name in names if name not in skipped and not name.startswith("."))
        for filename in filenames:
            path = Path(folder, filename)
            if not filename.startswith(".") and (corpus != PYTHON or path.suffix == ".py"):
                files.append((path, path.relative_to(root).as_posix()))
    if not files:
        raise UserError(f"corpus {corpus!r}: the folder holds no files; put documents or code into it")
    return sorted(files, key=lambda file: file[1])


def read(path: Path, name: str, licence: str) -> Iterator[Document]:
    """Yield the documents of one file: usually one, for a module of string topics one per topic.

    Raises:
        Unreadable: with the reason `unsupported_type`, `unreadable`, `empty`, `binary`, `invalid_utf8`,
            `invalid_python` or `not_a_file`.
    """
    layout = FORMATS.get(path.suffix.lower())
    if layout is None:
        raise Unreadable("unsupported_type")
    if not path.is_file():
        raise Unreadable("not_a_file")
    try:
        raw = path.read_bytes()
    except OSError:
        raise Unreadable("unreadable") from None
    if not raw.strip():
        raise Unreadable("empty")
    if b"\0" in raw:
        raise Unreadable("binary")
    bom = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    try:
        content = raw[bom:].decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("invalid_utf8") from None
    sha256 = hashlib.sha256(raw).hexdigest()
    document = Document(content, layout, name, name, sha256, bom, len(raw), UTF8, licence)
    if document.kind == "text":
        yield document
        return
    try:
        tree = parse_python(content)
        document.__dict__["functions"] = functions(content, tree)  # fills the cached property from the same tree
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unreadable("invalid_python") from None
    topics = name.endswith("pydoc_data/topics.py")
    lines = _line_starts(content, bom)
    for literal in _topics(tree) if topics else _docstrings(tree):
        start = lines[literal.lineno - 1] + literal.col_offset
        end = lines[(literal.end_lineno or literal.lineno) - 1] + (literal.end_col_offset or 0)
        unit = f"{name}:{start}" if topics else name
        yield Document(inspect.cleandoc(str(literal.value)), "rst", name, unit, sha256, start, end, LITERAL, licence)
    if not topics:
        yield document


def _topics(tree: ast.Module) -> Iterator[ast.Constant]:
    """The help topics of `pydoc_data`: a dictionary of reStructuredText pages."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for value in node.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value.strip():
                    yield value


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """The docstrings long enough to be read as prose."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                value = first.value
                if isinstance(value.value, str) and len(value.value) >= MIN_DOCSTRING:
                    yield value


def _line_starts(content: str, bom: int) -> list[int]:
    """The byte at which each line of the file starts."""
    return list(accumulate((len(line.encode()) + 1 for line in content.split("\n")), initial=bom))
