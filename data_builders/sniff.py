"""A sample of a corpus: which of its files are read, and what is seen in them.

Files are drawn by a hash of their names, so that the sample of a corpus is always the same one; some of every format
are among them. Of a large file of records, parts are read that are spread over it. How much is read has a limit that
does not grow with the corpus.
"""

from __future__ import annotations

import math
import stat
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from data_builders.columns import Columns, columns
from data_builders.documents import (
    SCHEMES,
    Document,
    Fields,
    Skipped,
    Unreadable,
    corpus_files,
    read,
    readable,
    splittable,
    streamed,
)
from data_builders.mining import READER_FAILED
from data_builders.pipeline import SHARD_BYTES
from data_builders.readers.files import COMPRESSIONS
from data_builders.splits import hashed
from instructrec.core.errors import UserError
from instructrec.core.privacy import find

LEAST_FILES, LEAST_BYTES, LEAST_RECORDS = 8, 64 << 10, 4
"""Of a format (records: of a part of a file) so much is read at least, where there is so much."""

PARTS = 16
"""Places at which a large file of records is read; and large files that share what is read of their format."""

LARGE, MOST_LARGE = 1 << 20, 4 << 20
"""Bytes of a file that is a single document: from the one on, it is read only if its format has few smaller ones, from
the other on only if it has no other one."""

SEARCHED = 20_000
"""Characters of a document that are searched for personal data."""

COLUMNS_OF = 8
"""Files of records of one format whose fields are looked at."""


@dataclass(frozen=True)
class Limits:
    """How much is read at most, about."""

    files: int = 1_000
    bytes: int = 4 << 20
    records: int = 2_000


@dataclass
class Excerpt:
    """A file, or a part of one, that is read; and what was seen there.

    Attributes:
        path, name: as `corpus_files` gives them.
        size: bytes of the whole file.
        start, end: as `documents.read` takes them.
        most_bytes, most_records: after how much reading stops.
        cut: whether it stopped for that.
        seconds: of a processor, for reading and mining.
        extent: bytes (or rows) of the records that were read, in the unit of their places.
        seen: (kind, language or "", licence) → documents.
        units: of the documents, see `Document.unit`.
        skipped: reason → records.
        unreadable: why the file yields nothing (more).
        personal: kind of secret or personal datum → documents that hold one.
    """

    path: Path
    name: str
    size: int
    start: int = 0
    end: int | None = None
    most_bytes: float = math.inf
    most_records: float = math.inf
    cut: bool = False
    extent: int = 0
    seconds: float = 0.0
    seen: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    units: set[str] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)
    personal: Counter[str] = field(default_factory=Counter)
    unreadable: str = ""

    def read(self, licence: str, fields: Fields) -> Iterator[Document | Skipped]:
        """What `documents.read` yields, up to the limits; raises what it raises."""
        started = time.process_time()
        size = records = 0
        try:
            for record in read(self.path, self.name, licence, start=self.start, end=self.end, fields=fields):
                if size >= self.most_bytes or records >= self.most_records:
                    self.cut = True
                    break
                if isinstance(record, Document):
                    size += record.size
                    self.seen[record.kind, record.language or "", record.licence] += 1
                    self.units.add(record.unit)
                    paused = time.process_time()
                    self.personal.update({finding.kind for finding in find(record.content[:SEARCHED])})
                    started += time.process_time() - paused
                else:
                    size += record.end - record.start
                    self.skipped[record.reason] += 1
                records += 1
                self.extent += record.end - record.start
                yield record
        except Unreadable as reason:
            self.unreadable = str(reason)
            raise
        except Exception:
            self.unreadable = READER_FAILED
            raise
        finally:
            self.seconds = time.process_time() - started


@dataclass
class Format:
    """The files of one suffix.

    Attributes:
        suffix: in lower case; two of them where the second is a compression.
        files: place, name and bytes of each.
        readable: whether any reader takes such files.
        excerpts: what is read of them.
    """

    suffix: str
    files: list[tuple[Path, str, int]]
    readable: bool = True
    excerpts: list[Excerpt] = field(default_factory=list)

    @cached_property
    def bytes(self) -> int:
        return sum(size for *_, size in self.files)

    @cached_property
    def read_files(self) -> int:
        return len({excerpt.name for excerpt in self.excerpts})

    @cached_property
    def read_bytes(self) -> float:
        """Bytes that were read; a part of a file counts as that part of its bytes."""
        by_file: dict[str, list[Excerpt]] = defaultdict(list)
        for excerpt in self.excerpts:
            by_file[excerpt.name].append(excerpt)
        return sum(excerpts[0].size * _read_share(excerpts) for excerpts in by_file.values())

    @cached_property
    def cut(self) -> bool:
        """Whether only a part of a file was read; asked after reading, as what follows."""
        return any(excerpt.cut for excerpt in self.excerpts)

    @cached_property
    def share(self) -> float:
        """The part of the format's documents that was read: of its files, or of its bytes where files were cut."""
        if not self.excerpts:
            return 0.0
        if self.cut:
            return min(max(self.read_bytes, 1) / max(self.bytes, 1), 1.0)
        return self.read_files / len(self.files)

    @property
    def documents(self) -> float:
        """Documents in all, as far as can be told."""
        return sum(excerpt.seen.total() for excerpt in self.excerpts) / (self.share or 1)


@dataclass
class Sample:
    """What is read of a corpus.

    Attributes:
        corpus: as the user names it.
        formats: sorted by suffix; those that no reader takes have no excerpts.
        whole: whether all that can be read is meant to be; then a build has a single shard.
    """

    corpus: str
    formats: list[Format]
    whole: bool

    def __post_init__(self) -> None:
        self.order = sorted(
            ((excerpt, form) for form in self.formats for excerpt in form.excerpts),
            key=lambda pair: (pair[0].name, pair[0].start),
        )

    @property
    def files(self) -> int:
        return sum(len(form.files) for form in self.formats)

    @property
    def bytes(self) -> int:
        return sum(form.bytes for form in self.formats)

    @property
    def readable_bytes(self) -> int:
        """Of the files that a reader takes."""
        return sum(form.bytes for form in self.formats if form.readable)

    def listed(self) -> list[tuple[Path, str, int]]:
        """Place, name and bytes of every file in the order of a build."""
        return sorted((file for form in self.formats for file in form.files), key=lambda file: file[1])

    @property
    def complete(self) -> bool:
        """Whether everything was read to its end."""
        return self.whole and not any(excerpt.cut for excerpt, _ in self.order)

    def readings(self, licence: str, fields: Fields) -> Iterator[tuple[str, Iterator[Document | Skipped]]]:
        """The excerpts in the order of a build, as `mining.mine_files` takes them."""
        for excerpt, _ in self.order:
            yield excerpt.name, excerpt.read(licence, fields)

    def again(self) -> Sample:
        """The same excerpts, not read yet."""
        formats = []
        for form in self.formats:
            excerpts = [
                Excerpt(e.path, e.name, e.size, e.start, e.end, e.most_bytes, e.most_records) for e in form.excerpts
            ]
            formats.append(Format(form.suffix, form.files, form.readable, excerpts))
        return Sample(self.corpus, formats, self.whole)

    def seen(self) -> dict[tuple[str, str, str], float]:
        """(kind, language or "", licence) → documents in all, as far as can be told."""
        total: dict[tuple[str, str, str], float] = defaultdict(float)
        for excerpt, form in self.order:
            for key, n in excerpt.seen.items():
                total[key] += n / form.share
        return dict(total)

    def skipped(self) -> dict[str, float]:
        """Reason → files and records in all that yield nothing, as far as can be told."""
        total: dict[str, float] = defaultdict(float)
        for form in self.formats:
            if not form.readable:
                total["unsupported_type"] += len(form.files)
            for excerpt in form.excerpts:
                for reason, n in excerpt.skipped.items():
                    total[reason] += n / form.share
            for reason, _ in {(excerpt.unreadable, excerpt.name) for excerpt in form.excerpts if excerpt.unreadable}:
                total[reason] += len(form.files) / form.read_files
        return dict(sorted(total.items()))

    def personal(self) -> dict[str, int]:
        """Kind of secret or personal datum → documents of the sample that hold one."""
        return dict(sorted(sum((excerpt.personal for excerpt, _ in self.order), Counter[str]()).items()))


def draw(corpus: str, limits: Limits) -> Sample:
    """Choose what to read of a corpus.

    Args:
        corpus: a folder, a file, or `python`.
        limits: how much to read.

    Raises:
        UserError: nothing is there, it holds no file, or it is no folder of files but a data set or a history.
    """
    if corpus.startswith(SCHEMES):
        raise UserError(
            f"--corpus {corpus}: init looks at files alone; a data set or a history is built without it, by"
            f" `instructrec build --corpus {corpus}`"
        )
    files: dict[str, list[tuple[Path, str, int]]] = defaultdict(list)
    for path, name in corpus_files(corpus):
        files[_suffix(path)].append((path, name, _size(path)))
    formats = [Format(suffix, files[suffix], readable(files[suffix][0][0])) for suffix in sorted(files)]
    read_from = [form for form in formats if form.readable]
    number, size = sum(len(form.files) for form in read_from), sum(form.bytes for form in read_from)
    whole = number <= limits.files and size <= min(limits.bytes, SHARD_BYTES)
    for form in read_from:
        most_files = max(LEAST_FILES, limits.files * len(form.files) // number)
        most_bytes = max(LEAST_BYTES, limits.bytes * form.bytes // max(size, 1))
        form.excerpts = list(_excerpts(form.files, *((math.inf, math.inf) if whole else (most_files, most_bytes))))
    records = [excerpt for form in read_from for excerpt in form.excerpts if streamed(excerpt.path)]
    expected = [min(excerpt.most_bytes, (excerpt.end or excerpt.size) - excerpt.start) for excerpt in records]
    for excerpt, part in zip(records, expected, strict=True):
        excerpt.most_records = max(LEAST_RECORDS, limits.records * part // max(sum(expected), 1))
    return Sample(corpus, formats, whole)


def _excerpts(files: list[tuple[Path, str, int]], most_files: float, most_bytes: float) -> Iterator[Excerpt]:
    """What to read of the files of one format."""
    several = max(LEAST_BYTES, most_bytes / min(len(files), PARTS))
    numbered = []
    for path, name, size in files:
        large = size > LARGE and not streamed(path)
        numbered.append(((large, size if large else hashed("sample", name)), path, name, size))
    read_files, read_bytes = 0, 0.0
    for (large, _), path, name, size in sorted(numbered, key=lambda entry: entry[0]):
        if large and most_bytes < math.inf:
            enough = read_files >= LEAST_FILES or size > MOST_LARGE
        else:
            enough = read_files >= most_files or read_bytes >= most_bytes
        if enough and read_files:
            return
        read_files += 1
        if not streamed(path):
            read_bytes += size
            yield Excerpt(path, name, size)
            continue
        read_bytes += min(size, several)
        parts = PARTS if splittable(path) and size > LEAST_BYTES else 1
        for part in range(parts):
            start, end = size * part // parts, size * (part + 1) // parts
            yield Excerpt(path, name, size, start, end if parts > 1 else None, several / parts)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() + suffix if suffix in COMPRESSIONS else suffix


def _size(path: Path) -> int:
    """Bytes of a regular file; 0 for anything else, which its reader will name."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _read_share(excerpts: list[Excerpt]) -> float:
    """The part of a file that was read in its excerpts."""
    if not any(excerpt.cut for excerpt in excerpts):
        return 1.0
    return min(sum(excerpt.extent for excerpt in excerpts) / max(_extent(excerpts[0].path, excerpts[0].size), 1), 1.0)


def _extent(path: Path, size: int) -> float:
    """Bytes of a file of records as its reader counts them: of the decompressed stream, or its number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() == ".parquet":
        return pq.read_metadata(path).num_rows
    if path.suffix.lower() not in COMPRESSIONS:
        return size
    with pa.OSFile(str(path)) as raw:
        opened = pa.CompressedInputStream(raw, "gzip" if path.suffix.lower() == ".gz" else "zstd")
        decompressed = 0
        try:
            while decompressed < LARGE and (chunk := opened.read(LEAST_BYTES)):
                decompressed += len(chunk)
        except OSError:
            pass  # whoever reads as far as that says what is wrong
        return decompressed * size / max(raw.tell(), 1)


@dataclass(frozen=True)
class Records:
    """The fields of the files of records.

    Attributes:
        names: what `fields` of a build must say; empty where the usual names do.
        found: for each format of records, the name of a file and its fields.
        others: files whose text has another name than `names` says, out of `looked_at`.
        without: files in which no field looks like a text.
    """

    names: dict[str, str]
    found: dict[str, tuple[str, Columns]]
    others: int
    without: int
    looked_at: int


def record_fields(sample: Sample) -> Records:
    """Look at the first records of the sample's files, and choose the names of fields that read most of the bytes."""
    found: dict[str, tuple[str, Columns]] = {}
    votes: Counter[str] = Counter()
    titles: Counter[tuple[str, str]] = Counter()
    usual_titles = without = 0
    texts: list[str] = []
    for form in sample.formats:
        names = dict.fromkeys((excerpt.path, excerpt.name, excerpt.size) for excerpt in form.excerpts)
        for path, name, size in list(names)[:COLUMNS_OF]:
            if (its := columns(path)) is None:
                continue
            found.setdefault(form.suffix, (name, its))
            if not its.text:
                without += 1
                continue
            text = "" if its.usual else its.text
            texts.append(text)
            votes[text] += size * len(form.files)
            usual_titles += its.title in Fields.title
            if its.title and its.title not in Fields.title:
                titles[text, its.title] += size * len(form.files)
    chosen = max(sorted(votes), key=votes.__getitem__, default="")
    called = {title: n for (text, title), n in titles.items() if text == chosen}
    needed = {"text": chosen} if chosen else {}
    if called and not usual_titles:
        needed["title"] = max(sorted(called), key=called.__getitem__)
    others = sum(text != chosen for text in texts)
    return Records(needed, found, others, without, len(texts) + without)
