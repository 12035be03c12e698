"""A folder of preference pairs, read back: its manifest and its pairs, each checked against the contract.

A folder of pairs (`instructrec pairs`) has the splits of `schema.PAIR_SPLITS` and a `manifest.json` with the
`fingerprint` of their Parquet.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint
from instructrec.core.hashing import hashed
from instructrec.core.schema import PAIR, SIDES, TEST_CORRUPTORS, TEST_DOCUMENTS, PairsManifest, check_record

UNSEEN = (TEST_DOCUMENTS, TEST_CORRUPTORS)
"""The splits that no training pair shares a document with, nor, of the latter, a kind of fault."""

BATCH = 1024

P = TypeVar("P", bound=Mapping[str, Any])


def read_manifest_of_pairs(folder: Path) -> PairsManifest:
    """The manifest of a folder of pairs. Raises `UserError` where there is none, or that of something else."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder}: no preference pairs there; make them with `instructrec pairs`") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); make the pairs again") from None
    known = manifest.keys() if isinstance(manifest, dict) else set()
    if missing := sorted(PairsManifest.__required_keys__ - known):
        raise UserError(f"{path}: not the manifest of preference pairs (it has no {missing[0]!r}); make them again")
    return manifest


def unchanged(folder: Path) -> PairsManifest:
    """The manifest of a folder whose pairs are still those that it tells of. Raises `UserError` otherwise."""
    manifest = read_manifest_of_pairs(folder)
    if fingerprint(folder, "*.parquet") != manifest["fingerprint"]:
        raise UserError(f"{folder}: its Parquet files changed since it was made; make the pairs again")
    return manifest


def read_pairs(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Yield the pairs of one split, checked, with their file and row as `name`; nothing where it has no file.

    Raises:
        UserError: a file is unreadable, its columns are not those of `PAIR`, or a pair breaks the contract.
    """
    import pyarrow.parquet as pq

    for path in sorted((folder / split).glob("*.parquet")):
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path}: not a readable Parquet file ({reason}); make the pairs again") from None
        if odd := sorted(set(file.schema_arrow.names) ^ set(PAIR.names)):
            raise UserError(f"{path}: columns do not fit the contract ({', '.join(odd)})")
        number = 0
        for batch in file.iter_batches(BATCH):
            for pair in batch.to_pylist():
                check_pair(pair, f"{path}, row {number}")
                yield pair | {"name": f"{split}/{path.name}:{number}"}
                number += 1


def check_pair(pair: dict[str, Any], where: str) -> None:
    """Raise `UserError` if a pair breaks the contract: types, roles, or answers that are empty or the same."""
    check_record(pair, PAIR, where)
    if not pair["prompt"] or pair["prompt"][-1]["role"] != "user":
        raise UserError(f"{where}: 'prompt' must end with a message of role 'user'")
    for side in SIDES:
        if [message["role"] for message in pair[side]] != ["assistant"]:
            raise UserError(f"{where}: {side!r} must be one message of role 'assistant'")
        if not pair[side][0]["content"].strip():
            raise UserError(f"{where}: {side!r} is empty, so that there is nothing to prefer")
    if pair["chosen"][0]["content"].strip() == pair["rejected"][0]["content"].strip():
        raise UserError(f"{where}: 'chosen' and 'rejected' are the same answer; leave the pair out")


def drawn(pairs: Iterable[P], most: int) -> list[P]:
    """At most so many pairs, chosen by a hash of their names: the same ones wherever a split is ranked."""
    return heapq.nsmallest(most, pairs, key=lambda pair: hashed("drawn", pair["name"]))
