"""Which fields the records of a file have, and which of them look like the text and its title.

The usual names need nobody's help (`readers/records.py`). Where a file has none of them, the text is the field with the
most words, and the title a short one that is called like a title.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_builders.documents import Fields, Unreadable, streamed
from data_builders.readers.files import COMPRESSIONS, stream
from instructrec.core.segmentation import count_words

RECORDS, RECORD_BYTES = 50, 1 << 20
"""Records of a file that are looked at, and bytes of them, at most."""

LEAST_TEXT_WORDS, MOST_TITLE_WORDS = 8, 20
"""Mean words of a text at least, of a title at most."""

MOST_VALUE = 2_000
"""Characters of a value that are looked at."""

_TITLE = re.compile(r"(?:^|[_.\s-]|(?<=[a-z]))(?:title|headline|heading|subject|name)$", re.I)


@dataclass(frozen=True)
class Columns:
    """The fields of one file of records that hold text.

    Attributes:
        words: field → mean words of its values.
        text, title: the fields for which to read them, usual or not; empty where none looks like it.
        usual: whether the text has a usual name, so that nothing has to be said.
    """

    words: dict[str, float]
    text: str
    title: str
    usual: bool


def columns(path: Path) -> Columns | None:
    """The fields of the first records of a file; null where it is no file of records, or none can be read."""
    values: dict[str, list[str]] = {}
    try:
        for record in islice(_records(path), RECORDS):
            for name, value in _texts(record):
                values.setdefault(name, []).append(value[:MOST_VALUE])
    except (Unreadable, OSError, ValueError, RecursionError, csv.Error):
        pass  # whoever reads it all says what is wrong
    return judged(values) if values else None


def judged(values: Mapping[str, list[str]]) -> Columns:
    """Which of the fields are what, from values of each."""
    words = {name: sum(map(count_words, texts)) / len(texts) for name, texts in values.items()}
    usual = Fields()
    text = next((name for name in usual.text if name in words), "")
    if not text:
        # By what a field holds in all, so that a long text that few records have does not win.
        total = {name: words[name] * len(texts) for name, texts in values.items() if words[name] >= LEAST_TEXT_WORDS}
        text = max(sorted(total), key=total.__getitem__, default="")
    title = next((name for name in usual.title if name in words), "")
    if not title:
        short = [
            name
            for name, texts in values.items()
            if name != text
            and _TITLE.search(name)
            and 0 < words[name] <= MOST_TITLE_WORDS
            and 2 * len(set(texts)) > len(texts)
        ]
        title = min(short, key=lambda name: (len(name), name), default="")
    return Columns(words, text, title, text in usual.text)


def _texts(record: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The fields of a record that hold text, and those of the records in it."""
    if not isinstance(record, Mapping):
        return
    for key, value in record.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, str) and value.strip():
            yield prefix + key, value
        elif not prefix:
            yield from _texts(value, f"{key}.")


def _records(path: Path) -> Iterator[Any]:
    suffix = path.suffix.lower()
    if not streamed(path) or suffix == ".mbox":
        return
    if suffix == ".parquet":
        yield from _parquet(path)
        return
    with stream(path, COMPRESSIONS.get(suffix, "")) as source:
        lines = (line.raw.decode("utf-8-sig" if line.start == 0 else "utf-8") for line in source.lines() if line.raw)
        few = _up_to(lines, RECORD_BYTES)
        if suffix in (".csv", ".tsv"):
            header = next(few, "")
            delimiter = "\t" if suffix == ".tsv" else ";" if "," not in header else ","
            names = next(csv.reader([header], delimiter=delimiter), [])
            yield from csv.DictReader(few, names, delimiter=delimiter)
        else:
            yield from (json.loads(line) for line in few if line.strip())


def _up_to(lines: Iterable[str], size: int) -> Iterator[str]:
    for line in lines:
        yield line
        size -= len(line)
        if size <= 0:
            return


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            schema = file.schema_arrow
            texts = [
                field.name
                for field in schema
                if pa.types.is_string(field.type)
                or pa.types.is_large_string(field.type)
                or pa.types.is_struct(field.type)
            ]
            for batch in file.iter_batches(RECORDS, columns=texts, use_threads=False):
                yield from batch.to_pylist()
                return
    except pa.ArrowException as error:
        raise Unreadable("corrupt") from error
