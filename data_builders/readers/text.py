"""Prose and source code: a file is a document; in Python every long docstring is one more."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from data_builders.layout import Function, functions, parse_python, python_lines
from data_builders.readers.document import UTF8, Document, Unreadable
from data_builders.readers.files import whole_text

LITERAL = "python-literal/1"
MIN_DOCSTRING = 200
"""Characters from which a docstring is a document of its own."""


def read_text(path: Path, name: str, licence: str, layout: str) -> Iterator[Document]:
    """Yield a file of prose or code as it is; a Python module after its docstrings.

    Raises:
        Unreadable: as `files.whole_text`, or `invalid_python`.
    """
    whole = whole_text(path)
    document = whole.document(path, name, licence, whole.content, layout, UTF8)
    if layout == "python":
        yield from _python(document)
    else:
        yield document


def _python(document: Document) -> Iterator[Document]:
    try:
        tree = parse_python(document.content)
        # Fills the cached property from the same tree.
        document.__dict__["functions"] = functions(document.content, tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unreadable("invalid_python") from None
    name = document.path
    topics = name.endswith("pydoc_data/topics.py")
    lines = _line_starts(document.content, document.start)
    for literal in _topics(tree) if topics else _docstrings(tree):
        start = lines[literal.lineno - 1] + literal.col_offset
        end = lines[(literal.end_lineno or literal.lineno) - 1] + (literal.end_col_offset or 0)
        unit = f"{name}:{start}" if topics else name
        text = inspect.cleandoc(str(literal.value))
        yield Document(text, "rst", name, unit, document.sha256, start, end, LITERAL, document.licence)
    if not topics:
        yield document


def parsed_functions(content: str) -> list[Function] | None:
    """The functions of Python source that is no file of its own; null if it does not parse."""
    try:
        return functions(content, parse_python(content))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


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
    return list(accumulate((len(line.encode()) + 1 for line in python_lines(content)), initial=bom))
