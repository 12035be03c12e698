"""Parquet, streamed by row group and batch; only the columns that are fields are read.

Bytes of a row are spread over its columns' pages, so that a document's `start..end` are numbers of rows here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_builders.readers import document as limits
from data_builders.readers.document import Document, Skipped, Unreadable
from data_builders.readers.files import file_sha256, file_size
from data_builders.readers.licences import licence_of
from data_builders.readers.records import Fields, Origin, record_document

EXTRACTOR = "parquet-row/1"
_BATCH_ROWS = 64
_BUFFER_BYTES = 1 << 20


def read_parquet(
    path: Path, name: str, licence: str, fields: Fields, start: int, end: int | None
) -> Iterator[Document | Skipped]:
    """Yield the rows of the row groups whose first byte lies in `start..end`.

    Raises:
        Unreadable: `not_a_file`, `unreadable`, `empty`, `truncated`, `corrupt` or `no_text_field`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file_size(path):
        raise Unreadable("empty")
    try:
        with path.open("rb") as head:
            magic = head.read(4)
        # Pages are read as they are needed, so that a row group of gigabytes does not have to fit into memory.
        file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise Unreadable("unreadable") from None
        raise Unreadable("truncated" if magic == b"PAR1" else "corrupt") from None
    with file:
        leaves = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
        columns = [name for name in fields.names if name in leaves]
        if not set(columns) & set(fields.text):
            raise Unreadable("no_text_field")
        text = next(leaves.index(name) for name in fields.text if name in leaves)
        origin = Origin(name, file_sha256(path), EXTRACTOR, licence_of(path, name, "", licence))
        row = 0
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            last = row + group.num_rows
            if group.num_rows and start <= _first_byte(group) and (end is None or _first_byte(group) < end):
                if group.column(text).total_uncompressed_size > limits.MAX_DOCUMENT_BYTES * group.num_rows:
                    yield Skipped(name, "too_large", row, last)
                else:
                    yield from _rows(file, number, columns, fields, origin, row, last)
            row = last


def _first_byte(group: Any) -> int:
    column = group.column(0)
    places = (column.dictionary_page_offset, column.data_page_offset)
    return min(place for place in places if place is not None)


def _rows(
    file: Any, group: int, columns: list[str], fields: Fields, origin: Origin, row: int, last: int
) -> Iterator[Document | Skipped]:
    import pyarrow as pa

    try:
        batches = file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False)
        for batch in batches:
            for record in _records(batch):
                if record is None:
                    yield Skipped(origin.path, "invalid_utf8", row, row + 1)
                else:
                    yield record_document(record, fields, origin, row, row + 1)
                row += 1
    except (pa.ArrowException, OSError):
        yield Skipped(origin.path, "corrupt", row, last)


def _records(batch: Any) -> Iterator[dict[str, Any] | None]:
    """The rows of a batch; null for one that is not UTF-8."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for i in range(batch.num_rows):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield None
