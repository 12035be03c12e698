"""Secrets and personal data in files that may leave this machine: found and named by place, never repeated.

Text is searched by line, JSON by its texts (a vocabulary's neighbours are no sentence), Parquet by row, and anything
else, such as pickles and optimizer states, by its runs of printable characters; what is compressed, but for Parquet, is
not unpacked. A finding tells kind and place only.
"""

from __future__ import annotations

import codecs
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.core.privacy import CARD, EMAIL, KEY, PHONE, find

SECRETS = frozenset({KEY})
"""Kinds that no file of a published folder may hold, whether it goes out or stays."""

EVERYTHING = frozenset({KEY, EMAIL, PHONE, CARD})
"""Kinds that nothing which goes out may hold."""

_CALLED = {KEY: "a secret", EMAIL: "an e-mail address", PHONE: "a phone number", CARD: "a payment card's number"}

MOST_NAMED = 3
"""Places that an error names."""

_CHUNK, _OVERLAP = 1 << 22, 4096
"""Bytes of a binary file that are looked at together, and how many of them twice: no key is longer."""

_LEAST = 20
"""Characters of the shortest secret."""

_PRINTABLE = bytes(120 if 32 <= code < 127 or code in b"\t\n\r" else 0 for code in range(256))
"""x for what text has, line breaks (of a private key) among it."""

_RUN = re.compile(rb"[\t\n\r -~]{%d,}" % _LEAST)

_BETWEEN = "\n\x00\n"
"""Stands between texts that do not follow one another; no finding reaches across it."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Something that must not go out: its file, its place in it, and what it is."""

    file: str
    place: str
    kind: str

    def __str__(self) -> str:
        return f"{self.file}, {self.place}: {_CALLED[self.kind]}"


def refuse(leaks: Sequence[Leak], mend: str) -> None:
    """Raise `UserError` that names the first places, if there are any."""
    if leaks:
        named = "; ".join(map(str, leaks[:MOST_NAMED]))
        more = f"; and {len(leaks) - MOST_NAMED} more" if len(leaks) > MOST_NAMED else ""
        raise UserError(f"not published: {named}{more}; {mend}")


def scan(name: str, content: Path | bytes, kinds: Collection[str], known: Sequence[str] = ()) -> Iterator[Leak]:
    """What a file holds of `kinds`.

    Args:
        name: of the file, as findings call it.
        content: the file, or its bytes.
        known: secrets that are looked for letter by letter, such as the token in use.
    """
    for start, kind in _findings(name, kinds, known)[:1]:
        yield Leak(name[:start].rpartition("/")[0] or "the folder", "the name of a file", kind)
        return
    if name.endswith(".parquet"):
        yield from _scan_rows(name, content, kinds, known)
        return
    if name.endswith(".safetensors") and (personal := set(kinds) - SECRETS):
        yield from _scan_json(name, _header(content), personal, ())
    if isinstance(content, Path) and content.stat().st_size > 16 * _CHUNK:  # no text of ours is as large
        yield from _scan_binary(name, content, known)
        return
    data = content.read_bytes() if isinstance(content, Path) else content
    text = _text(data)
    if text is None:
        yield from _scan_binary(name, data, known)
    elif name.endswith(".json"):
        yield from _scan_json(name, text, kinds, known)
    else:
        for start, kind in _findings(text, kinds, known):
            yield Leak(name, f"line {text.count(chr(10), 0, start) + 1}", kind)


def _text(data: bytes) -> str | None:
    """A file's text in UTF-8, in UTF-16 as Windows marks it, or with one byte a letter; null for none."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    return None if "\x00" in text else text


def _header(content: Path | bytes) -> str:
    """The JSON in front of the weights in safetensors, where metadata are."""
    if isinstance(content, bytes):
        return content[8 : 8 + int.from_bytes(content[:8], "little")].decode("utf-8", "replace")
    with content.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, 16 * _CHUNK)).decode("utf-8", "replace")


def _findings(text: str, kinds: Collection[str], known: Sequence[str]) -> list[tuple[int, str]]:
    """(where it starts, its kind), in order."""
    found = [(finding.start, finding.kind) for finding in find(text) if finding.kind in kinds]
    return sorted({*found, *((text.find(secret), KEY) for secret in known if secret in text)})


def _scan_json(name: str, text: str, kinds: Collection[str], known: Sequence[str]) -> Iterator[Leak]:
    try:
        parts = list(_texts(json.loads(text, object_pairs_hook=_Pairs), ""))
    except (ValueError, RecursionError):
        parts = [("", text)]
    starts, place = [], 0
    for _, part in parts:
        starts.append(place)
        place += len(part) + len(_BETWEEN)
    for start, kind in _findings(_BETWEEN.join(part for _, part in parts), kinds, known):
        key = parts[bisect_right(starts, start) - 1][0]
        yield Leak(name, f"key {key}" if key else "top level", kind)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written: a key may be there twice."""


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """(key, text) of every text of a value of JSON or of a row.

    A text stands behind its key, which may tell that it is a secret. The text of bytes is their runs of characters.
    """
    if isinstance(value, dict):
        value = _Pairs(value.items())
    if isinstance(value, _Pairs):
        for name, inner in value:
            # Where a finding is must not be told by its own text: no address, number or key is as short and plain.
            plain = len(name) < _LEAST and name.replace("-", "_").isidentifier()
            place = f"{key}.{name}".lstrip(".") if plain else key
            if isinstance(inner, str):
                yield place, f"{name}: {inner}"
            else:
                yield key, name
                yield from _texts(inner, place)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _texts(inner, f"{key}[{number}]")
    elif isinstance(value, str):
        yield key, value
    elif isinstance(value, bytes):
        yield key, "\n".join(run.decode("ascii") for run in _RUN.findall(value))


def _scan_binary(name: str, content: Path | bytes, known: Sequence[str]) -> Iterator[Leak]:
    """Secrets in the printable runs of bytes; numbers and addresses by chance are too likely in weights."""
    seen = set()
    for offset, chunk in _chunks(content):
        for secret in known:
            if (place := chunk.find(secret.encode())) >= 0:
                seen.add(offset + place)
                yield Leak(name, f"byte {offset + place:,}", KEY)
        runs = chunk.translate(_PRINTABLE)
        start = runs.find(b"x" * _LEAST)
        while start >= 0:
            end = runs.find(b"\x00", start)
            end = len(runs) if end < 0 else end
            for found, kind in _findings(chunk[start:end].decode("ascii"), SECRETS, ()):
                if (place := offset + start + found) not in seen:
                    seen.add(place)
                    yield Leak(name, f"byte {place:,}", kind)
            start = runs.find(b"x" * _LEAST, end)


def _chunks(content: Path | bytes) -> Iterator[tuple[int, bytes]]:
    if isinstance(content, bytes):
        yield 0, content
        return
    with content.open("rb") as file:
        offset, tail = 0, b""
        while data := file.read(_CHUNK):
            yield offset - len(tail), tail + data
            offset += len(data)
            tail = data[-_OVERLAP:]


def _scan_rows(name: str, content: Path | bytes, kinds: Collection[str], known: Sequence[str]) -> Iterator[Leak]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(content if isinstance(content, Path) else pa.BufferReader(content)) as file:
            described = {
                key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
                for key, value in (file.metadata.metadata or {}).items()
                if key != b"ARROW:schema"
            }
            for key, text in _texts(described, ""):
                for _, kind in _findings(text, kinds, known):
                    yield Leak(name, f"metadata {key}", kind)
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    text = _BETWEEN.join(part for _, part in _texts(row, ""))
                    for _, kind in _findings(text, kinds, known):
                        yield Leak(name, f"row {row.get('id')}", kind)
    except pa.ArrowException:  # it is none, or half of one
        yield from _scan_binary(name, content, known)
