"""First stage: one shard of files → mined examples and what the hold-out must know about their documents.

A pure function of the shard's bytes and the config, so that shards can run anywhere, in any order and again.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.config import BuildConfig
from data_builders.documents import Document, Skipped, Unreadable, read
from data_builders.families import Example, Family
from data_builders.quota import Quota
from data_builders.splits import hashed
from instructrec.core.errors import UserError
from instructrec.core.files import atomic, write_json
from instructrec.core.minhash import SLOTS, signature
from instructrec.core.parquet import BATCH
from instructrec.core.segmentation import count_words

EXAMPLES = pa.schema(
    [
        pa.field("unit", pa.int32()),
        pa.field("family", pa.string()),
        pa.field("language", pa.string()),
        pa.field("example", pa.binary()),
        pa.field("source", pa.binary()),
        pa.field("key", pa.uint64()),
        pa.field("words", pa.int64()),
    ]
)
"""A mined example: index of its unit in the shard; `example` and `source` are JSON; `key` is what the balance
chooses it by; `words` counts its answer's."""

UNITS = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("documents", pa.int64()),
        pa.field("bytes", pa.int64()),
        pa.field("signature", pa.binary(4 * SLOTS)),
        pa.field("examples", pa.int32()),
    ]
)
"""A unit of the hold-out, and how many examples were found in it."""

READER_FAILED = "reader_failed"
"""Why a file was skipped whose reader raised what it should not."""


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


def pack(example: Example) -> bytes:
    """An example as JSON."""
    fields = (example.fields, example.answer, example.start, example.end, example.options, example.checks)
    return orjson.dumps(fields)


def unpack(text: bytes) -> Example:
    """The example that `pack` wrote."""
    return Example(*orjson.loads(text))


def key_of(seed: int, family: str, source: bytes, packed: bytes) -> int:
    """A hash of a packed example by which it is chosen, worded and ordered: 64 bits, uniform."""
    digest = hashlib.blake2b(f"{seed} {family} ".encode() + source + packed, digest_size=8).digest()
    return int.from_bytes(digest, "big")


def balance_key(key: int, seed: int, document: str, place: int, families: int) -> int:
    """An example's key, led by how many families ask about its place, and by a hash of the place.

    So families keep examples about the same texts, those first that most of them ask about.
    """
    return 63 - min(families, 63) << 58 | hashed(seed, "place", document, place) >> 22 << 16 | key >> 48


def mine(
    document: Document, config: BuildConfig, quota: Quota | None = None
) -> Iterator[tuple[Family, Example | Exception]]:
    """Every family's examples from one document, `per_document` each at most, or what the quota says.

    A family that raises on a document yields the exception in its place; the other families go on. For conversations
    a quota asks all of few documents, the same ones for every family, instead of few of all.
    """
    rng = random.Random(0)
    place = hashed(config.seed, "quota", document.unit) / 2**64 if config.turns_per_document > 1 else 0.0
    side = quota.side(document.unit) if quota else ""
    for family in config.mined_families:
        if family.kind == document.kind and family.wordings(document.language):
            rng.seed(hashed(config.seed, family.name, document.path, document.start, document.sha256))
            try:
                most = quota.of(family.name, side) if quota else config.per_document
                if config.turns_per_document > 1:
                    most = config.per_document if place < most / config.per_document else 0
                for example in islice(family.mine(document, rng), most):
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


def pack_source(document: Document, example: Example) -> bytes:
    """The row's `source` as JSON."""
    return orjson.dumps([source_of(document, example)])


LABELS_COUNTED, LONGEST_LABEL = 50, 30
"""For the `majority` gate: of each family's answers of up to 30 characters, the 50 most frequent of a shard."""


class _Unit:
    """What is gathered about one unit while its documents pass by."""

    def __init__(self, index: int, document: Document) -> None:
        self.index, self.name, self.kind = index, document.unit, document.kind
        self.documents = self.bytes = 0
        self.longest = ""
        self.examples = 0

    def see(self, document: Document) -> None:
        self.documents += 1
        self.bytes += document.size
        self.kind = document.kind
        # The longest document of a unit contains the others (docstrings stand in their file).
        if len(document.content) > len(self.longest):
            self.longest = document.content

    def row(self) -> tuple[Any, ...]:
        return self.name, self.kind, self.documents, self.bytes, signature(self.longest).tobytes(), self.examples


Piece = tuple[str, str, int, int | None]
"""Place and name of a file, and the range of its bytes that a shard reads; a null end is the file's end."""


class _Shard:
    """Mines documents one by one and writes what it finds."""

    def __init__(self, config: BuildConfig, quota: Quota, examples: Path, units: Path) -> None:
        self.config, self.quota = config, quota
        self.examples, self.units = _Writer(examples, EXAMPLES), _Writer(units, UNITS)
        self.skipped: list[dict[str, Any]] = []
        self.failed: dict[tuple[str, str], dict[str, Any]] = {}
        self.labels: dict[str, Counter[str]] = defaultdict(Counter)
        self.kinds = {family.kind for family in config.mined_families}
        self.languages: Counter[tuple[str, str]] = Counter()
        self._unit: _Unit | None = None
        self._units = 0

    def document(self, document: Document) -> None:
        """Mine one document; those of one unit come one after the other."""
        if self._unit is None or self._unit.name != document.unit:
            self.end_unit()
            self._unit = _Unit(self._units, document)
            self._units += 1
        unit = self._unit
        unit.see(document)
        if document.kind in self.kinds:
            self.languages[document.kind, document.language or ""] += 1
        examples: list[tuple[Family, Example]] = []
        for family, example in mine(document, self.config, self.quota):
            if isinstance(example, Exception):
                reason = f"family_failed:{family.name}"
                entry = {"path": document.path, "reason": reason, "error": repr(example)[:200]}
                self.failed[document.path, reason] = entry
            else:
                examples.append((family, example))
        talks, language = self.config.turns_per_document > 1, document.language or ""
        # What families make of one passage, list or table ends where that does.
        follow = [(f, e) for f, e in examples if talks and f.follow_ups.get(language)]
        asking = Counter(place for _, place in {(family.name, example.end) for family, example in follow})
        for family, example in examples:
            if len(example.answer) <= LONGEST_LABEL:
                self.labels[family.name][example.answer] += 1
            source, packed = pack_source(document, example), pack(example)
            key = key_of(self.config.seed, family.name, source, packed)
            if talks and family.follow_ups.get(language):
                key = balance_key(key, self.config.seed, document.key, example.end, asking[example.end])
            words = count_words(example.answer)
            self.examples.add(unit.index, family.name, document.language, packed, source, key, words)
        found = Counter(family.name for family, _ in examples)
        unit.examples += found.total()
        self.quota.see(document.size, found, self.quota.side(document.unit))

    def skip(self, path: str, reason: str, **more: Any) -> None:
        self.skipped.append({"path": path, "reason": reason, **more})

    def end_unit(self) -> None:
        if self._unit is not None:
            self.units.add(*self._unit.row())
        self._unit = None

    def close(self) -> dict[str, Any]:
        """Write what is left; returns the shard's mark."""
        self.examples.close()
        self.units.close()
        answers = [
            [name, n, self.labels[name].most_common(LABELS_COUNTED)] for name, n in sorted(self.quota.found.items())
        ]
        skipped = self.skipped + list(self.failed.values())
        languages = [[*of, n] for of, n in sorted(self.languages.items())]
        return {"documents": self.quota.documents, "skipped": skipped, "answers": answers, "languages": languages}


def mine_shard(shards: Path, config: BuildConfig, folder: Path, rank: int) -> None:
    """Read and mine one shard, which `RANK.json` in `shards` describes, as `mine_files` does."""
    plan = json.loads((shards / f"{rank:05d}.json").read_text(encoding="utf-8"))
    pieces: list[Piece] = plan["pieces"]
    fields, licence = config.record_fields, config.document_licence

    def records(path: str, name: str, start: int, end: int | None) -> Iterator[Document | Skipped]:
        # In a generator, so that what `read` raises at once is met where the others are.
        yield from read(Path(path), name, licence, start=start, end=end, fields=fields)

    readings = ((piece[1], records(*piece)) for piece in pieces)
    mine_files(readings, config, Quota(config, plan["bytes"], plan["corpus"]), folder, rank)


def mine_files(
    readings: Iterable[tuple[str, Iterator[Document | Skipped]]],
    config: BuildConfig,
    quota: Quota,
    folder: Path,
    rank: int,
) -> None:
    """Mine what is read of files, each given by its name and what `documents.read` yields of it.

    Writes `RANK.units.parquet`, `RANK.examples.parquet` and, last, `RANK.json` into `folder`: the number of documents,
    what was skipped, [family, examples, most frequent answers], and [kind, language or "", documents].
    """
    with (
        atomic(folder / f"{rank:05d}.examples.parquet") as examples,
        atomic(folder / f"{rank:05d}.units.parquet") as units,
    ):
        shard = _Shard(config, quota, examples, units)
        for name, records in readings:
            try:
                for record in records:
                    if isinstance(record, Skipped):
                        shard.skip(record.path, record.reason, start=record.start, end=record.end)
                    else:
                        shard.document(record)
            except Unreadable as reason:
                shard.skip(name, str(reason))
            except (OSError, UserError):  # a full disk, a data set that is not there: not this file's fault
                raise
            except Exception as error:  # a file that a reader did not foresee must not cost the build
                shard.skip(name, READER_FAILED, error=repr(error)[:200])
            shard.end_unit()
        mark = shard.close()
    write_json(folder / f"{rank:05d}.json", mark)
