"""From a row back to the bytes that it was made from, and from those bytes to the row again."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from data_builders.config import BuildConfig
from data_builders.conversations import as_turn
from data_builders.documents import PYTHON, Document, Fields, Skipped, Unreadable, corpus_files, read
from data_builders.families import Example
from data_builders.mining import mine, pack, pack_source, source_of
from data_builders.readers.files import COMPRESSIONS, file_sha256, stream
from data_builders.rendering import Renderer, mask_example
from data_builders.splits import TEST
from data_builders.written import FILE, SYNTHESIZED, Texts, Written, read_written
from instructrec.core.errors import UserError
from instructrec.core.schema import (
    INSTRUCTION,
    SPLITS,
    TRAIN,
    VALIDATION,
    Manifest,
    check_instruction,
    check_turn,
    read_manifest,
    read_split,
    split_files,
)

LEAST_DIGITS = 6
"""Hex digits of an id from which a prefix is accepted."""

MOST_SHOWN = 2000
"""Characters of a source span that `trace` prints."""

_ID = re.compile(rf"[0-9a-f]{{{LEAST_DIGITS},32}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CHUNK = 1 << 20
# What stands at these places is not text (rows of a table, pages of a PDF) or not in a file (commits).
_NOT_BYTES_OF_TEXT = re.compile(r"-row/|git-commit/|pdf/")


@dataclass(frozen=True, slots=True)
class Span:
    """The text that a source entry points at, from its beginning, and whether that is all of it."""

    text: str
    complete: bool


class RawFiles:
    """The raw files of a corpus by the names that rows carry.

    Args:
        corpus: as `data_builders.documents.corpus_files` takes it.
        fields: of records, as `data_builders.documents.read` takes them.

    Raises:
        UserError: there is no such corpus.
    """

    def __init__(self, corpus: str, fields: Fields | None = None) -> None:
        self.corpus, self.record_fields = corpus, fields
        self.files = {name: path for path, name in corpus_files(corpus)}

    def place(self, source: dict[str, Any]) -> tuple[Path, str]:
        """Place and name of the file of a source entry, as `data_builders.documents.read` takes them.

        Raises:
            UserError: the corpus has no such file.
        """
        name = source["path"]
        if name in self.files:
            return self.files[name], name
        # A data set or repository is one entry of the corpus; its rows name it without the split, or with the commit.
        for known, path in self.files.items():
            if not path.is_file() and name.startswith(known.partition("#")[0]):
                return path, known
        raise UserError(
            f"corpus {self.corpus!r}: has no file {name!r}; give --corpus the folder that the set was built from"
        )

    def verify(self, source: dict[str, Any]) -> None:
        """Make sure that the file of a source entry is the one of the build; what is no file has nothing to verify.

        Raises:
            UserError: the file is missing, unreadable, or has changed since the build.
        """
        path, _ = self.place(source)
        if not path.is_file():
            return
        try:
            found = file_sha256(path)
        except Unreadable as reason:
            raise UserError(f"{path}: {reason}; put the file of the build back") from None
        if found != source["sha256"]:
            raise UserError(
                f"{path}: changed since the build (sha256 {source['sha256'][:12]}… then, {found[:12]}… now); "
                "put the file of the build back, or build the set again"
            )

    def spans(self, sources: Iterable[dict[str, Any]], most: int) -> dict[tuple[str, int, int], Span]:
        """The text at (path, start, end) of every source entry, `most` characters of each; each file is read once.

        Raises:
            UserError: the corpus has no such file.
            OSError: a file cannot be read.
        """
        by_file: dict[tuple[Path, str, str], dict[tuple[str, int, int], None]] = defaultdict(dict)
        for source in sources:
            by_file[(*self.place(source), source["extractor"])][source["path"], source["start"], source["end"]] = None
        found: dict[tuple[str, int, int], Span] = {}
        for (path, name, extractor), wanted in by_file.items():
            try:
                if _NOT_BYTES_OF_TEXT.search(extractor):
                    texts = _from_documents(path, name, set(wanted), self.record_fields)
                    found |= {key: Span(text[:most], len(text) <= most) for key, text in texts.items()}
                    continue
                compression = COMPRESSIONS.get(path.suffix.lower(), "") if "+" in extractor else ""
                # A character of UTF-8 has four bytes at most; no more of a long span has to be read.
                ranges = {key: (key[1], min(key[2], key[1] + 4 * most + 4)) for key in wanted}
                with stream(path, compression) as source_file:
                    raw = _cut(source_file.file, set(ranges.values()), seekable=not compression)
            except Unreadable:
                continue
            for key, (start, end) in ranges.items():
                text = bytes(raw[start, end]).decode("utf-8", "backslashreplace")
                found[key] = Span(text[:most], end == key[2] and len(text) <= most)
        return found


def _cut(file: BinaryIO, ranges: set[tuple[int, int]], seekable: bool) -> dict[tuple[int, int], bytearray]:
    """The bytes of each range: by seeking, or in one pass over a stream that cannot go back."""
    found = {key: bytearray() for key in ranges}
    if seekable:
        for start, end in sorted(ranges):
            file.seek(start)
            found[start, end] += file.read(end - start)
        return found
    place, last = 0, max(end for _, end in ranges)
    while place < last and (chunk := file.read(_CHUNK)):
        for (start, end), kept in found.items():
            if start < place + len(chunk) and place < end:
                kept += chunk[max(start - place, 0) : end - place]
        place += len(chunk)
    return found


def _from_documents(
    path: Path, name: str, wanted: set[tuple[str, int, int]], record_fields: Fields | None
) -> dict[tuple[str, int, int], str]:
    """The content of the documents at (path, start, end)."""
    found: dict[tuple[str, int, int], str] = {}
    for document in read(path, name, "", fields=record_fields):
        if isinstance(document, Document):
            for key in wanted - found.keys():
                if document.path == key[0] and document.start <= key[1] and key[2] <= document.end:
                    found[key] = document.content
        if len(found) == len(wanted):
            break
    return found


def corpus_of(manifest: Manifest, corpus: str | None) -> str:
    """The corpus that a set was built from: the one given, or the one that the manifest names so that it can be found.

    Raises:
        UserError: none is given, and the manifest holds no more than a folder's name.
    """
    named = str(manifest["config"].get("corpus"))
    if corpus is None and named != PYTHON and not named.startswith("hf://"):
        raise UserError(f"the set was built from a corpus named {named!r}; say where it is now with --corpus")
    return named if corpus is None else corpus


def config_of(manifest: Manifest, corpus: str) -> BuildConfig:
    """The config that a set was built with, but for what it was decontaminated against: that only takes rows away.

    Raises:
        UserError: the set was built by a version with other settings.
    """
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in manifest["config"].items()}
    known = {field.name for field in fields(BuildConfig)}
    if unknown := sorted(values.keys() - known):
        built_by = manifest["versions"].get("instructrec", "another version")
        raise UserError(
            f"manifest.json: this version knows no setting {unknown[0]!r}; use the one that built the set ({built_by})"
        )
    return BuildConfig(**(values | {"corpus": corpus, "decontaminate": ()}))


def find_row(folder: Path, prefix: str) -> tuple[str, dict[str, Any]]:
    """Split and row of an id, or of its first hex digits.

    Raises:
        UserError: the prefix is no id, belongs to no row, or to several.
    """
    wanted = prefix.lower()
    if not _ID.fullmatch(wanted):
        raise UserError(f"row id {prefix!r}: must be {LEAST_DIGITS} to 32 hex digits, as in the column 'id'")
    found = [
        (row["id"], split, number)
        for split in SPLITS
        for number, row in enumerate(read_split(folder, split, ["id"]))
        if row["id"].startswith(wanted)
    ]
    if not found:
        raise UserError(f"{folder}: no row's id begins with {prefix!r}")
    if len(found) > 1:
        names = ", ".join(f"{name} ({split})" for name, split, _ in found[:4])
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise UserError(f"{folder}: {prefix!r} is the beginning of {len(found)} ids: {names}{more}; give more digits")
    _, split, number = found[0]
    return split, _row_at(folder, split, number)


def _row_at(folder: Path, split: str, number: int) -> dict[str, Any]:
    """One row of a split, reading no more than its row group."""
    for path in split_files(folder, split):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                length = file.metadata.row_group(group).num_rows
                if number < length:
                    row = file.read_row_group(group).slice(number, 1).to_pylist()[0]
                    check_instruction(row, str(path))
                    return row
                number -= length
    raise IndexError(number)


def turns_before(folder: Path, split: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a conversation's earlier turns, in order; none for a single turn.

    Raises:
        UserError: they do not lead up to the row.
    """
    if not row["turn"]:
        return []
    names = (other["conversation"] for other in read_split(folder, split, ["conversation"]))
    numbers = [number for number, name in enumerate(names) if name == row["conversation"]]
    turns = [_row_at(folder, split, number) for number in numbers[: row["turn"]]]
    for previous, turn in pairwise([*turns, row]):
        check_turn(turn, previous, f"{folder}, split {split}")
    return turns


@dataclass(frozen=True, slots=True)
class Rederived:
    """What came of deriving a row again.

    Attributes:
        differences: what is not as in the row; empty if all of it is.
        masked: how many secrets and personal data were masked in it.
    """

    differences: tuple[str, ...] = ()
    masked: int = 0

    @property
    def identical(self) -> bool:
        return not self.differences


def rederive(
    row: dict[str, Any], documents: Iterable[Document | Skipped], config: BuildConfig, texts: Texts | None = None
) -> Rederived:
    """Derive a row again: mine the documents, word each example of its span as the build does, compare every column.

    Which side of the hold-out a document is on is a choice about the whole corpus, so that all sides are tried. So is
    what stands before a turn of a conversation: earlier turns are taken as given, and derive again from their own rows.
    What a model wrote is not written again but looked up.

    Args:
        row: as the set holds it.
        documents: those of its source files, as `data_builders.documents.read` yields them; read no further than to
            the one that the row comes from.
        config: of the build.
        texts: what a model wrote for the set.
    """
    if row["family"] not in {family.name for family in config.mined_families}:
        return Rederived((f"family: {row['family']!r} is not among the families mined now",))
    config = replace(config, families=(row["family"],))
    nearest: list[str] | None = None
    notes: Counter[str] = Counter()
    seen = False
    try:
        for document in documents:
            if not isinstance(document, Document) or not _holds(document, row["source"]):
                continue
            seen = True
            for _, example in mine(document, config):
                if isinstance(example, Exception):
                    notes[f"family: {row['family']} raises {example!r} on the document"] += 1
                    continue
                source = [source_of(document, example)]
                if _places(source) != _places(row["source"]):
                    continue
                for differences in _compared(row, document, example, config, texts, notes):
                    if not differences:
                        return Rederived((), _masked(example, config))
                    if nearest is None or len(differences) < len(nearest):
                        nearest = differences
    except Unreadable as reason:
        notes[f"source: the file cannot be read now ({reason})"] += 1
    if nearest is not None:
        return Rederived(tuple(nearest))
    if not notes:
        what = (
            f"family: {row['family']} finds no example in these bytes"
            if seen
            else "source: no document holds these bytes"
        )
        notes[what] += 1
    return Rederived(tuple(notes))


def _places(source: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(entry["path"], entry["start"], entry["end"]) for entry in source]


def _holds(document: Document, source: list[dict[str, Any]]) -> bool:
    return any(
        (document.path, document.sha256) == (entry["path"], entry["sha256"])
        and document.start <= entry["start"]
        and entry["end"] <= document.end
        for entry in source
    )


def _masked(example: Example, config: BuildConfig) -> int:
    return mask_example(example)[1] if "privacy" in config.gates else 0


def _compared(
    row: dict[str, Any],
    document: Document,
    example: Example,
    config: BuildConfig,
    texts: Texts | None,
    notes: Counter[str],
) -> Iterator[list[str]]:
    """For each row that the example becomes, on any side, how it differs from `row`; `notes` gets what rejects it."""
    renderer = Renderer(config, {}, texts=texts)
    source = pack_source(document, example)
    for side in (TRAIN, VALIDATION, TEST):
        for rendered in renderer.rows(row["family"], document.language or "", pack(example), source, side):
            now = dict(zip(INSTRUCTION.names, rendered.values, strict=True))
            if row["turn"] is not None:
                about = {"text": rendered.text, "reference": rendered.reference, "follow_up": rendered.follow_up}
                turn = as_turn(now | about, row["conversation"], row["turn"], row["prompt"][:-1])
                now = {name: turn[name] for name in INSTRUCTION.names}
            yield _differences(row, now)
    for (_, gate), _n in renderer.rejects.counts.items():
        notes[f"gate: {gate} rejects it"] += 1


def _differences(row: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each column that differs, without those that follow from another one."""
    keys = [key for key in now if row[key] != now[key]]
    implied = {"id"} | ({"targets"} if "completion" in keys else set())
    return [_difference(key, row[key], now[key]) for key in keys if key not in implied or len(keys) == 1]


def _difference(key: str, then: Any, now: Any) -> str:
    """Both values from shortly before where they part."""
    old, new = _as_text(key, then), _as_text(key, now)
    parting = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    first = max(parting - 20, 0)
    shown = [f"{'…' if first else ''}{t[first : first + 60]}{'…' if len(t) > first + 60 else ''}" for t in (old, new)]
    return f"{key}: {shown[0]!r} in the set, {shown[1]!r} now"


def _as_text(key: str, value: Any) -> str:
    if key in ("prompt", "completion"):
        return "\n".join(message["content"] for message in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def trace(folder: Path, prefix: str, corpus: str | None) -> tuple[str, bool]:
    """What to print about one row, and whether the row could be derived again.

    Args:
        folder: of the set.
        prefix: the row's id, or its first hex digits.
        corpus: where the set's corpus is now; null where the manifest says it.

    Raises:
        UserError: no such set, row or corpus, or a file changed since the build.
    """
    manifest = read_manifest(folder)
    split, row = find_row(folder, prefix)
    config = config_of(manifest, corpus_of(manifest, corpus))
    raw = RawFiles(config.corpus, config.record_fields)
    written = read_written(folder)
    lines = [
        f"row        {row['id']} · {split}",
        f"family     {row['family']} (group {row['group']}, {row['kind']})",
        f"wording    {row['template']} ({row['language']})",
        *_writer(row, manifest, written),
    ]
    if row["turn"] is not None:
        lines.append(f"turn       {row['turn']} of conversation {row['conversation']}")
    for entry in row["source"]:
        raw.verify(entry)
    spans = raw.spans(row["source"], MOST_SHOWN)
    for number, entry in enumerate(row["source"], start=1):
        path, _ = raw.place(entry)
        is_file = path.is_file()
        lines += [
            "",
            f"source     {entry['path']}" + (f" ({number} of {len(row['source'])})" if len(row["source"]) > 1 else ""),
            f"file       {path}" + (f", sha256 {entry['sha256'][:12]}… as in the build" if is_file else ""),
            f"{_unit(entry['extractor']):<10} {entry['start']}..{entry['end']}",
            f"extractor  {entry['extractor']}",
            f"licence    {entry['licence']}",
        ]
        span = spans.get(_places([entry])[0])
        lines += (
            _block("source", span.text, "" if span.complete else f"; cut at {MOST_SHOWN:,} characters") if span else []
        )
    lines.append("")
    for message in (*row["prompt"], *row["completion"]):
        lines += _block(message["role"], message["content"])
    masked, differences = 0, []
    for turn in (*turns_before(folder, split, row), row):
        result = rederive(turn, _documents(turn, raw, config), config, Texts(written))
        masked += result.masked
        said = "" if turn is row else f"turn {turn['turn']} (row {turn['id']}): "
        differences += [f"  {said}{difference}" for difference in result.differences]
    lines.append("")
    if masked:
        lines.append(f"masked     {masked} secrets or personal data, by the privacy gate")
    if differences:
        lines += ["NOT re-derivable:", *differences, *(f"  {text}" for text in _version_changes(manifest))]
    else:
        lines.append("re-derived: identical")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", "\n".join(lines)), not differences


def _documents(row: dict[str, Any], raw: RawFiles, config: BuildConfig) -> Iterator[Document | Skipped]:
    """The documents of a row's files."""
    for path, name in dict.fromkeys(raw.place(entry) for entry in row["source"]):
        yield from read(path, name, config.document_licence, fields=config.record_fields)


def _writer(row: dict[str, Any], manifest: Manifest, written: list[Written]) -> Iterator[str]:
    """Who wrote the instruction, and by which likelihoods it was kept, where a model did."""
    if SYNTHESIZED not in (row["family"], row["template"].rpartition(".")[2]):
        return
    yield f"written by {manifest['synthesis']['model']}; what it wrote is looked up in {FILE}, not written again"
    asked = row["prompt"][0]["content"] if row["family"] == SYNTHESIZED else row["template"]
    entry = next((e for e in written if asked in (e.text, e.name) and e.family == row["family"]), None)
    if entry:
        yield (
            f"likelihood {entry.instructed:.1f} of its answers in log units; {entry.bare:.1f} without instruction, "
            f"{entry.mismatched:.1f} with another's"
        )
    else:
        yield f"likelihood not known: {FILE} does not hold it"


def _unit(extractor: str) -> str:
    if "-row" in extractor:
        return "rows"
    return "unpacked" if "+" in extractor else "bytes"


def _block(title: str, text: str, note: str = "") -> list[str]:
    return [f"┌ {title}{note}", *(f"│ {line}" for line in text.split("\n"))]


def _version_changes(manifest: Manifest) -> Iterator[str]:
    """Packages that are not as in the build, as they may be why."""
    for package, then in manifest["versions"].items():
        try:
            now = version(package)
        except PackageNotFoundError:
            now = "not installed"
        if then != now:
            yield f"{package}: {then} at the build, {now} now"
