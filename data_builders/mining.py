"""First stage: one shard of files → mined examples and what the hold-out must know about their documents.

A pure function of the shard's bytes and the config, so that shards can run anywhere, in any order and again.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.config import BuildConfig
from data_builders.documents import Document, Skipped, Unreadable, read
from data_builders.families import Example, Family
from data_builders.splits import hashed
from instructrec.core.errors import UserError
from instructrec.core.files import atomic, write_json
from instructrec.core.minhash import SLOTS, signature
from instructrec.core.segmentation import count_words

EXAMPLES = pa.schema(
    [
        pa.field("unit", pa.int32()),
        pa.field("family", pa.string()),
        pa.field("language", pa.string()),
        pa.field("example", pa.string()),
        pa.field("source", pa.string()),
        pa.field("key", pa.uint64()),
    ]
)
"""A mined example: index of its unit in the shard; `example` and `source` are JSON; `key` is `key_of` it."""

UNITS = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("documents", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("signature", pa.binary(4 * SLOTS)),
        pa.field("found", pa.string()),
    ]
)
"""A unit of the hold-out; `found` is JSON: family → [examples, words in their answers]."""

BATCH = 2048


class _Writer:
    """Buffers rows and writes them to a temporary Parquet file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.file = pq.ParquetWriter(path, schema, compression="zstd", compression_level=1)
        self.schema = schema
        self.rows: list[tuple[Any, ...]] = []

    def add(self, *values: Any) -> None:
        self.rows.append(values)
        if len(self.rows) >= BATCH:
            self.flush()

    def flush(self) -> None:
        columns = zip(*self.rows, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
        self.file.write_batch(pa.record_batch(arrays, schema=self.schema))
        self.rows.clear()

    def close(self) -> None:
        if self.rows:
            self.flush()
        self.file.close()


def pack(example: Example) -> str:
    """An example as JSON."""
    fields = (example.fields, example.answer, example.start, example.end, example.options, example.checks)
    return orjson.dumps(fields).decode()


def unpack(text: str) -> Example:
    """The example that `pack` wrote."""
    return Example(*orjson.loads(text))


def key_of(seed: int, family: str, source: str, packed: str) -> int:
    """A hash of a packed example by which it is chosen, worded and ordered: 64 bits, uniform."""
    return hashed(seed, family, source, packed)


def mine(document: Document, config: BuildConfig) -> Iterator[tuple[Family, Example | Exception]]:
    """Every family's examples from one document, `per_document` each at most.

    A family that raises on a document yields the exception in its place; the other families go on.
    """
    for family in config.mined_families:
        if family.kind == document.kind and document.language in family.templates:
            rng = random.Random(hashed(config.seed, family.name, document.path, document.start, document.sha256))
            try:
                for example in islice(family.mine(document, rng), config.per_document):
                    yield family, example
            except Exception as error:  # a bug in one family must not cost the build
                yield family, error


def source_of(document: Document, example: Example) -> dict[str, Any]:
    """The row's `source` entry: the bytes that the example was made from."""
    start, end = document.span(example.start, example.end)
    return {
        "path": document.path,
        "sha256": document.sha256,
        "start": start,
        "end": end,
        "extractor": document.extractor,
        "licence": document.licence,
    }


def pack_source(document: Document, example: Example) -> str:
    """The row's `source` as JSON."""
    return orjson.dumps([source_of(document, example)]).decode()


LABELS_COUNTED, LONGEST_LABEL = 50, 30
"""For the `majority` gate: of each family's answers of up to 30 characters, the 50 most frequent of a shard."""

NOTHING = "{}"
"""`found` of a unit without examples."""


class _Unit:
    """What is gathered about one unit while its documents pass by."""

    def __init__(self, index: int, document: Document) -> None:
        self.index, self.name, self.kind = index, document.unit, document.kind
        self.documents = self.bytes = 0
        self.longest = ""
        self.examples: Counter[str] = Counter()
        self.words: Counter[str] = Counter()

    def see(self, document: Document) -> None:
        self.documents += 1
        self.bytes += document.size
        self.kind = document.kind
        # The longest document of a unit contains the others (docstrings stand in their file).
        if len(document.content) > len(self.longest):
            self.longest = document.content

    def row(self) -> tuple[Any, ...]:
        found = {name: [n, self.words[name]] for name, n in sorted(self.examples.items())}
        mark = signature(self.longest).tobytes()
        return self.name, self.kind, self.documents, self.bytes, mark, json.dumps(found)


Piece = tuple[str, str, int, int | None]
"""Place and name of a file, and the range of its bytes that a shard reads; a null end is the file's end."""


def mine_shard(shards: Path, config: BuildConfig, folder: Path, rank: int) -> None:
    """Read and mine the pieces of one shard, which `RANK.json` in `shards` lists.

    Writes `RANK.units.parquet`, `RANK.examples.parquet` and, last, `RANK.json` into `folder`: the number of documents,
    what was skipped, and [family, examples, most frequent answers].
    """
    pieces: list[Piece] = json.loads((shards / f"{rank:05d}.json").read_text(encoding="utf-8"))
    found: Counter[str] = Counter()
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    documents = 0
    skipped: list[dict[str, Any]] = []
    failed: dict[str, dict[str, str]] = {}
    with (
        atomic(folder / f"{rank:05d}.examples.parquet") as examples_file,
        atomic(folder / f"{rank:05d}.units.parquet") as units_file,
    ):
        examples, units = _Writer(examples_file, EXAMPLES), _Writer(units_file, UNITS)
        count = 0
        for path, name, start, end in pieces:
            unit: _Unit | None = None
            try:
                for document in read(
                    Path(path), name, config.document_licence, start=start, end=end, fields=config.record_fields
                ):
                    if isinstance(document, Skipped):
                        place = {"start": document.start, "end": document.end}
                        skipped.append({"path": document.path, "reason": document.reason, **place})
                        continue
                    if unit is None or unit.name != document.unit:
                        if unit is not None:
                            units.add(*unit.row())
                        unit = _Unit(count, document)
                        count += 1
                    unit.see(document)
                    documents += 1
                    for family, example in mine(document, config):
                        if isinstance(example, Exception):
                            reason = f"family_failed:{family.name}"
                            failed[f"{name}{reason}"] = {"path": name, "reason": reason, "error": repr(example)[:200]}
                            continue
                        unit.examples[family.name] += 1
                        found[family.name] += 1
                        if len(example.answer) <= LONGEST_LABEL:
                            labels[family.name][example.answer] += 1
                        unit.words[family.name] += count_words(example.answer)
                        source = pack_source(document, example)
                        packed = pack(example)
                        key = key_of(config.seed, family.name, source, packed)
                        examples.add(unit.index, family.name, document.language, packed, source, key)
            except Unreadable as reason:
                skipped.append({"path": name, "reason": str(reason)})
            except (OSError, UserError):  # a full disk, a data set that is not there: not this file's fault
                raise
            except Exception as error:  # a file that a reader did not foresee must not cost the build
                skipped.append({"path": name, "reason": "reader_failed", "error": repr(error)[:200]})
            if unit is not None:
                units.add(*unit.row())
        examples.close()
        units.close()
    write_json(
        folder / f"{rank:05d}.json",
        {
            "documents": documents,
            "skipped": skipped + list(failed.values()),
            "answers": [[name, n, labels[name].most_common(LABELS_COUNTED)] for name, n in sorted(found.items())],
        },
    )
