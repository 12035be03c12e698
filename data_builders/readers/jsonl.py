"""JSON Lines: one record per line, streamed; a bad line is skipped alone. Plain files can be cut at any byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from data_builders.readers.document import Document, Skipped
from data_builders.readers.files import Line, file_sha256, stream
from data_builders.readers.licences import licence_of
from data_builders.readers.records import Fields, Origin, record_document

EXTRACTOR = "jsonl{compression}/1"


def read_jsonl(
    path: Path, name: str, licence: str, fields: Fields, compression: str, start: int, end: int | None
) -> Iterator[Document | Skipped]:
    """Yield the records whose first byte lies in `start..end` (of the decompressed stream, and then all of them).

    Raises:
        Unreadable: as `files.stream`.
    """
    extractor = EXTRACTOR.format(compression=f"+{compression}" if compression else "")
    with stream(path, compression) as source:
        origin = Origin(name, file_sha256(path), extractor, licence_of(path, name, "", licence))
        source.seek_line(start, end)
        if end is not None and source.place >= end:
            return
        for line in source.lines():
            if line.raw is None or not line.raw.isspace():
                yield _record(line, fields, origin)
            if end is not None and line.end >= end:
                return


def _record(line: Line, fields: Fields, origin: Origin) -> Document | Skipped:
    if line.raw is None:
        return Skipped(origin.path, "too_large", line.start, line.end)
    raw = line.raw.rstrip(b"\r\n")
    end = line.start + len(raw)
    if b"\0" in raw:
        return Skipped(origin.path, "binary", line.start, end)
    try:
        record = json.loads(raw.decode("utf-8-sig" if line.start == 0 else "utf-8"))
    except UnicodeDecodeError:
        return Skipped(origin.path, "invalid_utf8", line.start, end)
    except (ValueError, RecursionError):
        return Skipped(origin.path, "invalid_json", line.start, end)
    return record_document(record, fields, origin, line.start, end)
