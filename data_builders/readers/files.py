"""Opening files: whole ones within the limit, streams of lines without one, and the hash of the raw bytes."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

from data_builders.readers import document as limits
from data_builders.readers.document import Document, Unreadable
from data_builders.readers.licences import licence_of

COMPRESSIONS = {".gz": "gz", ".zst": "zst"}
"""Suffix → name in the extractor."""

LEAST_EXPANSION, MOST_EXPANSION = 256 << 20, 100
"""A compressed file may become this many bytes, or this many times its size, whichever is more; prose packs 3 to 10."""

_CHUNK = 1 << 20
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
"""The marks that UTF-16 opens with; in UTF-8 neither byte ever occurs."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A file that is one document: its text from byte `start` (after a byte order mark) to `end`, and its hash."""

    content: str
    sha256: str
    start: int
    end: int

    def document(
        self, path: Path, name: str, licence: str, content: str, layout: str, extractor: str, **more: Any
    ) -> Document:
        """The document that a reader makes of the whole file, with `more` of the attributes of `Document`."""
        licence = licence_of(path, name, self.content, licence)
        return Document(content, layout, name, name, self.sha256, self.start, self.end, extractor, licence, **more)


def file_size(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        Unreadable: `not_a_file` (missing, a folder, a device, a loop of links) or `unreadable`.
    """
    try:
        status = os.stat(path)  # noqa: PTH116  half the cost of Path.stat, once per file
    except PermissionError:
        raise Unreadable("unreadable") from None
    except (OSError, ValueError):
        raise Unreadable("not_a_file") from None
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable("not_a_file")
    return status.st_size


def whole_bytes(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        Unreadable: `not_a_file`, `unreadable`, `too_large` or `empty`.
    """
    size = file_size(path)
    if size > limits.MAX_DOCUMENT_BYTES:
        raise Unreadable("too_large")
    try:
        with path.open("rb", buffering=0) as file:
            raw = file.read(size + 1)
            if len(raw) != size:  # it changed since, or its size is not what it says
                raw += file.read(limits.MAX_DOCUMENT_BYTES + 1 - len(raw))
    except OSError:
        raise Unreadable("unreadable") from None
    if len(raw) > limits.MAX_DOCUMENT_BYTES:
        raise Unreadable("too_large")
    if not raw or raw.isspace():
        raise Unreadable("empty")
    return raw


def whole_text(path: Path) -> Whole:
    """A file of UTF-8 text.

    Raises:
        Unreadable: as `whole_bytes`, `utf16`, `binary` or `invalid_utf8`.
    """
    raw = whole_bytes(path)
    if raw.startswith(_UTF16):
        raise Unreadable("utf16")
    if b"\0" in raw:
        raise Unreadable("binary")
    start = len(_BOM) if raw.startswith(_BOM) else 0
    try:
        content = (raw[start:] if start else raw).decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("invalid_utf8") from None
    return Whole(content, hashlib.sha256(raw).hexdigest(), start, len(raw))


_most_hashed: ContextVar[int | None] = ContextVar("most_hashed", default=None)


@contextmanager
def hashing_up_to(size: int) -> Iterator[None]:
    """Meanwhile `file_sha256` gives "" for larger files: a sample of one would else take as long as all of it."""
    token = _most_hashed.set(size)
    try:
        yield
    finally:
        _most_hashed.reset(token)


def file_sha256(path: Path) -> str:
    """The hash of a file of any size, computed once per process as long as its size and time stay the same.

    Raises:
        Unreadable: `not_a_file` or `unreadable`.
    """
    size = file_size(path)
    if (most := _most_hashed.get()) is not None and size > most:
        return ""
    try:
        return _sha256(str(path), size, path.stat().st_mtime_ns)
    except OSError:
        raise Unreadable("unreadable") from None


@lru_cache(maxsize=4096)
def _sha256(path: str, size: int, mtime: int) -> str:
    with open(path, "rb") as file:  # noqa: PTH123  a string is what can be cached
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a stream, with its line break; `raw` is null if it is longer than the limit, and was not kept."""

    raw: bytes | None
    start: int
    end: int


class Stream:
    """Lines of a file, decompressed on the way, with their byte places in the (decompressed) stream."""

    def __init__(self, file: BufferedReader, most: int | None) -> None:
        self.file = file
        self.most = most
        """decompressed bytes at most; null for a file that is not compressed"""
        self.place = 0

    def seek_line(self, start: int, end: int | None) -> None:
        """Go to the first line that begins at `start` or later; read no further than `end` for it."""
        if start:
            self.file.seek(start - 1)
            self.place = start - 1
            self._discard_line(end)

    def lines(self) -> Iterator[Line]:
        """The lines from here on.

        Raises:
            Unreadable: `too_large` for a file that expands beyond all reason.
        """
        limit = limits.MAX_DOCUMENT_BYTES
        while True:
            start = self.place
            raw = self.file.readline(limit + 1)
            if not raw:
                return
            self._advance(len(raw))
            if len(raw) > limit:
                if not raw.endswith(b"\n"):
                    self._discard_line(None)
                yield Line(None, start, self.place)
            else:
                yield Line(raw, start, self.place)

    def _discard_line(self, end: int | None) -> None:
        while end is None or self.place < end:
            raw = self.file.readline(_CHUNK)
            self._advance(len(raw))
            if not raw or raw.endswith(b"\n"):
                return

    def _advance(self, by: int) -> None:
        self.place += by
        if self.most is not None and self.place > self.most:
            raise Unreadable("too_large")


@contextmanager
def stream(path: Path, compression: str = "") -> Iterator[Stream]:
    """Open a file for lines. `compression` is a value of `COMPRESSIONS`, or empty.

    Raises:
        Unreadable: `not_a_file`, `unreadable`, `empty`, `utf16`, `truncated`, `corrupt` or `too_large`, here or while
            reading.
    """
    size = file_size(path)
    if not size:
        raise Unreadable("empty")
    most = max(LEAST_EXPANSION, MOST_EXPANSION * size) if compression else None
    try:
        with _open(path, compression) as file:
            if file.peek(2).startswith(_UTF16):
                raise Unreadable("utf16")
            yield Stream(file, most)
    except EOFError:
        raise Unreadable("truncated") from None
    except zlib.error:
        raise Unreadable("corrupt") from None
    except OSError as error:
        if not compression or error.errno is not None:
            raise Unreadable("unreadable") from None
        raise Unreadable("truncated" if "runcated" in str(error) else "corrupt") from None


def _open(path: Path, compression: str) -> BufferedReader:
    if compression == "gz":
        return cast(BufferedReader, gzip.open(path, "rb"))  # which has all that is asked of it
    if compression == "zst":
        import pyarrow as pa

        compressed = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
        return BufferedReader(compressed, _CHUNK)
    return cast(BufferedReader, path.open("rb", buffering=_CHUNK))
