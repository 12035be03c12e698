"""Reading Parquet files in little memory, however large they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 2048


def batches(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a file, `BATCH` at most at once; no row group is read ahead of its use.

    Args:
        columns: the names of those to read, all by default; of nested ones `name.list.element.field`.
    """
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            yield from file.iter_batches(BATCH, row_groups=[group], columns=columns, use_threads=False)
