"""The parts of a mixture, read: their rows without those that may not be trained on, and a fingerprint of each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructrec.core.errors import UserError
from instructrec.core.schema import read_manifest
from instructrec.data import QUICKSTART_SET
from instructrec.leaks import HeldOut, key_of
from instructrec.parts import Part
from instructrec.trl_formats import TEXT, format_of, open_set, open_text, texts_of

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 1024
"""Rows that are looked at together."""

NO_ANSWER, BLANK, NOT_TEXT = "without an answer", "without text", "that are no plain text"
"""Why rows are left out, beside the reasons of `leaks`."""


@dataclass(frozen=True, eq=False)
class Source:
    """A part that was read.

    Attributes:
        kind: what it is, in words.
        rows: without those that may not be trained on; of raw text all, because only as many are looked at as are used.
        names: of the rows; none of raw text.
        fingerprint: of the set's Parquet, or of all rows as they were read.
        left_out: reason → rows.
        columns: of TRL's format; none of an instruction set.
        files: of raw text, for each row the SHA-256 of the file that it is, or null.
    """

    part: Part
    kind: str
    rows: Dataset
    names: list[str]
    fingerprint: str
    left_out: Counter[str]
    columns: tuple[str, ...] = ()
    files: Sequence[str | None] = ()


def is_set(part: Part) -> bool:
    """Whether a part is an instruction set. Raises `UserError` if it is one and has keys of other sets."""
    if part.name is None or not (part.name == QUICKSTART_SET or (Path(part.name) / "manifest.json").is_file()):
        return False
    for key in ("config", "split", "revision"):
        if getattr(part, key) is not None:
            raise UserError(f"mixture: {part.name}: is an instruction set, of which `train` is used; leave {key} out")
    return True


def of_set(part: Part, train: Dataset, leaking: Mapping[str, str]) -> Source:
    """An instruction set.

    Args:
        train: its training rows, of `load_set`.
        leaking: those that hold what another set holds out (see `HeldOut.left_out`).
    """
    keys = [key_of({"conversation": c, "id": i}) for c, i in zip(train["conversation"], train["id"], strict=True)]
    rows = train.select([place for place, key in enumerate(keys) if key not in leaking])
    left_out = Counter(leaking[key] for key in keys if key in leaking)
    fingerprint = read_manifest(Path(part.place))["fingerprint"]
    return Source(part, "instruction set", rows, list(rows["id"]), fingerprint, left_out)


def of_trl(part: Part, held_out: HeldOut) -> Source:
    """A set of instructions in one of TRL's formats. Raises `UserError` if it cannot be read or breaks its format."""
    rows = open_set(part.place, part.config, part.split, part.revision)
    columns = format_of(part.place, rows.column_names)
    rows = rows.select_columns(list(columns))
    digest, left_out, kept = hashlib.sha256(), Counter[str](), list[int]()
    for first, batch in _batches(rows, digest):
        said = [texts_of(row, columns, f"mixture: {part.label}, row {first + i}") for i, row in enumerate(batch)]
        reasons = dict.fromkeys((at for at, texts in enumerate(said) if not texts), NO_ANSWER)
        reasons |= held_out.within(said)
        left_out.update(reasons.values())
        kept += [first + at for at in range(len(batch)) if at not in reasons]
    names = [f"{part.label}:{place}" for place in kept]
    kind = " and ".join(columns)
    if kept and isinstance(rows[kept[0]][columns[-1]], str):
        kind += " without chat template"
    return Source(part, kind, rows.select(kept), names, digest.hexdigest(), left_out, columns)


def of_text(part: Part) -> Source:
    """Raw text. Raises `UserError` if it cannot be read."""
    rows, files, unread = open_text(part.place, part.config, part.split, part.revision)
    digest, left_out = hashlib.sha256(), Counter({NOT_TEXT: unread} if unread else {})
    for _ in _batches(rows, digest):
        pass
    return Source(part, "raw text", rows, [], digest.hexdigest(), left_out, TEXT, files)


def _batches(rows: Dataset, digest: Any) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The rows, some at a time with the place of the first; `digest` takes all of them in."""
    for first in range(0, len(rows), BATCH):
        batch = rows.select(range(first, min(first + BATCH, len(rows)))).to_list()
        for row in batch:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode())
        yield first, batch
