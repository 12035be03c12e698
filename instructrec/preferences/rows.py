"""The rows of an instruction set that pairs are made from.

Pairs keep the split of their row. Rows of test_templates and test_tasks make none: they stay what an adapter is
evaluated on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructrec.core.hashing import hashed
from instructrec.core.schema import TEST_DOCUMENTS, TRAIN, VALIDATION, read_split

ROW_SPLITS = (TRAIN, VALIDATION, TEST_DOCUMENTS)
"""Splits of an instruction set whose rows make pairs."""


def rows_of(folder: Path, split: str, most: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of a split; with `most` that many of them, chosen by a hash of their ids and the seed."""
    chosen = None
    if most is not None:
        ids = (row["id"] for row in read_split(folder, split, ["id"]))
        chosen = set(heapq.nsmallest(most, ids, key=lambda name: hashed(seed, "row", name)))
    return (row for row in read_split(folder, split) if chosen is None or row["id"] in chosen)
