"""CSV and TSV with a header, streamed; a quoted field may hold line breaks, so that such a file is never cut."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from data_builders.readers import document as limits
from data_builders.readers.document import Document, Skipped, Unreadable
from data_builders.readers.files import Stream, file_sha256, stream
from data_builders.readers.licences import licence_of
from data_builders.readers.records import Fields, Origin, record_document

EXTRACTOR = "csv/1"


class _Lines:
    """Decoded lines for `csv.reader`, which takes exactly as many as a row needs; so `end` is where the row ends."""

    def __init__(self, source: Stream) -> None:
        self.lines = source.lines()
        self.end = 0
        self.problem = ""
        self.size = 0

    def reason(self) -> str:
        """Why `csv.reader` gave up on the row."""
        return "too_large" if self.size > limits.MAX_DOCUMENT_BYTES else "invalid_csv"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines)
        first, self.end = line.start == 0, line.end
        self.size += line.end - line.start
        if line.raw is None or self.size > limits.MAX_DOCUMENT_BYTES:
            # An open quote swallows what follows: stop keeping it; the error ends the row.
            raise csv.Error("too_large")
        if b"\0" in line.raw:
            self.problem = "binary"
            line_text = line.raw.replace(b"\0", b"").decode("utf-8", "replace")
        else:
            try:
                line_text = line.raw.decode("utf-8-sig" if first else "utf-8")
            except UnicodeDecodeError:
                self.problem = "invalid_utf8"
                line_text = line.raw.decode("utf-8", "replace")
        return line_text


def read_table(path: Path, name: str, licence: str, fields: Fields, delimiter: str) -> Iterator[Document | Skipped]:
    """Yield the rows below the header.

    Raises:
        Unreadable: as `files.stream`, `no_text_field` for a header without one, or the reason its header is bad, as
            `invalid_csv` if its lines end as on an old Mac.
    """
    csv.field_size_limit(limits.MAX_DOCUMENT_BYTES)
    with stream(path) as source:
        lines = _Lines(source)
        try:
            header_line = next(lines)
            if delimiter == "," and "," not in header_line and ";" in header_line:
                delimiter = ";"  # what spreadsheets write where a comma is the decimal sign
            header = next(csv.reader([header_line], delimiter=delimiter))
        except csv.Error:
            raise Unreadable(lines.reason()) from None
        if lines.problem:
            raise Unreadable(lines.problem)
        if not set(header) & set(fields.text):
            raise Unreadable("no_text_field")
        origin = Origin(name, file_sha256(path), EXTRACTOR, licence_of(path, name, "", licence))
        rows = csv.reader(lines, delimiter=delimiter)
        while True:
            start, lines.problem, lines.size = lines.end, "", 0
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error:
                yield Skipped(name, lines.reason(), start, lines.end)
                continue
            if lines.problem:
                yield Skipped(name, lines.problem, start, lines.end)
            elif row and len(row) != len(header):
                yield Skipped(name, "ragged_row", start, lines.end)
            elif row:
                yield record_document(dict(zip(header, row, strict=True)), fields, origin, start, lines.end)
