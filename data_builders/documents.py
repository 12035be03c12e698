"""Files → `Document`: text with its place in the raw bytes. What is unreadable is counted and stops nothing.

A corpus is a folder or file of any of the formats below, `python`, or by scheme `hf://owner/name[/config][#split]`,
`dataset:FOLDER[#split]` and `git:FOLDER`. How each format is read stands in `data_builders/readers`.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from data_builders.readers.document import (
    MAX_DOCUMENT_BYTES,
    UTF8,
    Document,
    Pair,
    Place,
    Skipped,
    Unreadable,
)
from data_builders.readers.files import COMPRESSIONS, file_size
from data_builders.readers.formats import CODE, TEXT
from data_builders.readers.records import Fields
from data_builders.readers.text import LITERAL, MIN_DOCSTRING, read_text
from instructrec.core.errors import UserError

__all__ = [
    "LITERAL",
    "MAX_DOCUMENT_BYTES",
    "MIN_DOCSTRING",
    "PYTHON",
    "SCHEMES",
    "UTF8",
    "Document",
    "Fields",
    "Pair",
    "Place",
    "Skipped",
    "Unreadable",
    "corpus_files",
    "read",
    "readable",
    "splittable",
    "streamed",
]

PYTHON = "python"
"""The name of the default corpus: the documentation and code that every Python installation carries."""

_LAYOUTS = TEXT | CODE
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSONL = (".jsonl", ".ndjson")
_HTML = (".html", ".htm", ".xhtml")
_PO = (".po", ".pot")
_SUBTITLES = (".srt", ".vtt")
_READABLE = {*_LAYOUTS, *_DELIMITERS, *_JSONL, *_HTML, *_PO, *_SUBTITLES, ".parquet", ".pdf", ".mbox"}
_HUB, _LOCAL, _GIT = SCHEMES = ("hf://", "dataset:", "git:")

_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "dist-packages"}
_PYTHON_SKIPPED_FOLDERS = _SKIPPED_FOLDERS | {"test", "tests", "idle_test", "ensurepip", "lib-dynload"}


def corpus_files(corpus: str) -> list[tuple[Path, str]]:
    """The files of a corpus as (place, relative name), sorted by name; a scheme's corpus is one such file.

    Args:
        corpus: a folder, a file, a data set or repository by its scheme, or `PYTHON`.

    Raises:
        UserError: nothing is there, or it holds no file.
    """
    if corpus.startswith(SCHEMES):
        return [_scheme_file(corpus)]
    if corpus == PYTHON:
        root, skipped = Path(sysconfig.get_path("stdlib")), _PYTHON_SKIPPED_FOLDERS
    else:
        root, skipped = Path(corpus), _SKIPPED_FOLDERS
        if root.is_file():
            return [(root, _portable(root.name))]
        if not root.is_dir():
            raise UserError(f"corpus {corpus!r}: no such folder; give --corpus an existing one")
    files = []
    closed: list[str] = []  # folders that cannot be listed, to be named like files that cannot be read
    for folder, names, filenames in os.walk(root, onerror=lambda error: closed.append(error.filename)):
        names[:] = sorted(name for name in names if name not in skipped and not name.startswith("."))
        # A link to a folder could lead in circles: it is not followed, but named.
        linked = [name for name in names if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118  too long for Path
        place = Path(folder)
        below = "" if place == root else f"{place.relative_to(root).as_posix()}/"
        files += [
            (place / filename, _portable(below + filename))
            for filename in (*filenames, *linked)
            if not filename.startswith(".") and (corpus != PYTHON or filename.endswith(".py"))
        ]
    files += [(Path(folder), _portable(Path(folder).relative_to(root).as_posix())) for folder in closed]
    if not files:
        raise UserError(f"corpus {corpus!r}: the folder holds no files; put documents or code into it")
    return sorted(files, key=lambda file: file[1])


def _scheme_file(corpus: str) -> tuple[Path, str]:
    if corpus.startswith(_HUB):
        return Path(corpus), corpus
    scheme, _, rest = corpus.partition(":")
    place, _, split = rest.partition("#")
    path = Path(place)
    if not place or not path.is_dir():
        raise UserError(f"corpus {corpus!r}: no such folder; give `{scheme}:` an existing one")
    # The name must not tell where on this machine the folder is.
    return path, f"{scheme}:{_portable(path.resolve().name)}" + (f"#{split}" if split else "")


def _portable(name: str) -> str:
    """A name that UTF-8 can hold; bytes of a file name that are not UTF-8 become `\\xNN`."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def splittable(path: Path) -> bool:
    """Whether `read` takes a byte range of this file, so that several workers can share it."""
    return path.suffix.lower() in (*_JSONL, ".parquet")


def readable(path: Path) -> bool:
    """Whether `read` knows the format of this file, by its name; it refuses others as `unsupported_type`."""
    return path.suffix.lower() in _READABLE or _compressed_jsonl(path)


def _compressed_jsonl(path: Path) -> bool:
    return path.suffix.lower() in COMPRESSIONS and Path(path.stem).suffix.lower() in _JSONL


def streamed(path: Path) -> bool:
    """Whether `read` takes documents from this file one by one, so that a part of it costs only a part of the time."""
    return splittable(path) or path.suffix.lower() in (*COMPRESSIONS, *_DELIMITERS, ".mbox")


def read(
    path: Path,
    name: str,
    licence: str,
    *,
    start: int = 0,
    end: int | None = None,
    fields: Fields | None = None,
) -> Iterator[Document | Skipped]:
    """Yield the documents of one file: usually one, for a file of records or topics one each.

    Args:
        path, name: as `corpus_files` gives them.
        licence: SPDX expression for what states none itself.
        start, end: byte range, for a `splittable` file alone: the records (of JSON Lines) or row groups (of Parquet)
            whose first byte lies in it. Ranges that cover a file yield each of its records exactly once.
        fields: names of the fields of records; null means the usual ones.

    Yields:
        `Document`, or `Skipped` for a record of a file of records that yields none: `not_a_record`, `no_text_field`,
            `empty`, `too_large`, `binary`, `invalid_utf8`, `invalid_json`, `invalid_python`, `invalid_csv`,
            `ragged_row`, `corrupt`, `invalid_mbox` or `invalid_message`.

    Raises:
        Unreadable: the file yields nothing (more): `unsupported_type`, `not_a_file`, `unreadable`, `empty`,
            `too_large`, `utf16`, `binary`, `invalid_utf8`, `truncated`, `corrupt`, `no_text`, `no_text_field`,
            `invalid_python`, `invalid_csv`, `invalid_po`, `invalid_pdf`, `needs_extra_pdf` or `needs_extra_git`.
        UserError: a data set or repository named by its scheme is not there.
    """
    suffix = path.suffix.lower()
    if (layout := _LAYOUTS.get(suffix)) is not None and not name.startswith(SCHEMES):
        return read_text(path, name, licence, layout)
    return _read_other(path, name, licence, suffix, start, end, fields or Fields())


def _read_other(
    path: Path, name: str, licence: str, suffix: str, start: int, end: int | None, fields: Fields
) -> Iterator[Document | Skipped]:
    """`read` for the formats whose modules are imported when they are met."""
    if name.startswith((_HUB, _LOCAL)):
        from data_builders.readers.hub import read_dataset

        yield from read_dataset(path, name, licence, fields)
    elif name.startswith(_GIT):
        from data_builders.readers.git_history import read_git

        yield from read_git(path, name, licence)
    elif not readable(path):
        file_size(path)  # a folder or pipe of that name is named as such
        raise Unreadable("unsupported_type")
    elif suffix == ".parquet":
        from data_builders.readers.parquet import read_parquet

        yield from read_parquet(path, name, licence, fields, start, end)
    elif suffix in _DELIMITERS:
        from data_builders.readers.tables import read_table

        yield from read_table(path, name, licence, fields, _DELIMITERS[suffix])
    elif suffix in _HTML:
        from data_builders.readers.html_page import read_html

        yield from read_html(path, name, licence)
    elif suffix in _PO:
        from data_builders.readers.po import read_po

        yield from read_po(path, name, licence)
    elif suffix in _SUBTITLES:
        from data_builders.readers.subtitles import read_subtitles

        yield from read_subtitles(path, name, licence)
    elif suffix == ".pdf":
        from data_builders.readers.pdf import read_pdf

        yield from read_pdf(path, name, licence)
    elif suffix == ".mbox":
        from data_builders.readers.mbox import read_mbox

        yield from read_mbox(path, name, licence)
    else:
        from data_builders.readers.jsonl import read_jsonl

        yield from read_jsonl(path, name, licence, fields, COMPRESSIONS.get(suffix, ""), start, end)
