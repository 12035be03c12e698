"""What only all rows together show: prompts that repeat, and training rows that hold a held-out row's passage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from instructrec.core.files import write_json
from instructrec.core.passages import Passages
from instructrec.core.schema import TRAIN

PROMPTS_IN_MEMORY = 4_000_000

Row = tuple[int, int]
"""Shard and number of a rendered row."""


def drop_overlaps(rendered: Path, shards: int, repeats: bool) -> None:
    """Write `RANK.dropped.json` for each shard: [row, gate] of the rows that must not be written.

    Args:
        rendered: folder of the rendered shards.
        shards: how many there are.
        repeats: whether a prompt that occurred before is dropped (the `duplicate` gate). Passages are always looked
            for, because a set with a leak is no set to train on.
    """
    dropped: dict[Row, str] = dict.fromkeys(repeated_prompts(rendered, shards) if repeats else (), "duplicate")
    dropped |= dict.fromkeys(leaking_rows(rendered, shards, set(dropped)), "near_duplicate")
    for rank in range(shards):
        rows = sorted([row, gate] for (shard, row), gate in dropped.items() if shard == rank)
        write_json(rendered / f"{rank:05d}.dropped.json", rows)


def repeated_prompts(rendered: Path, shards: int) -> Iterator[Row]:
    """The rows whose prompt occurred before, in the order of shards and rows.

    An external sort: hashes are dealt into parts, and one part is in memory at a time.
    """
    total = sum(np.load(rendered / f"{rank:05d}.prompts.npy", mmap_mode="r").size for rank in range(shards))
    parts = total // PROMPTS_IN_MEMORY + 1
    for part in range(parts):
        keys, places = [], []
        for rank in range(shards):
            hashes = np.load(rendered / f"{rank:05d}.prompts.npy")
            chosen = np.flatnonzero(hashes % np.uint64(parts) == part)
            keys.append(hashes[chosen])
            places.append(np.stack([np.full(len(chosen), rank), chosen], axis=1))
        key, place = np.concatenate(keys), np.concatenate(places)
        order = np.argsort(key, kind="stable")  # stable: the first occurrence stays first
        repeated = order[1:][key[order][1:] == key[order][:-1]]
        yield from ((rank, row) for rank, row in place[repeated].tolist())


def leaking_rows(rendered: Path, shards: int, without: set[Row]) -> Iterator[Row]:
    """The training rows that hold the passage of a held-out row, though they come from another document."""
    passages = Passages()
    for _, row in _rows(rendered, shards, without, train=False):
        passages.hold_out(row)
    places: dict[str, Row] = {}
    for place, row in _rows(rendered, shards, without, train=True):
        passages.train(row)
        places[row["id"]] = place
    # Without some rows, n-grams that looked like a wording's may turn out to be a passage's.
    while leaks := passages.leaks():
        ids = {leak.train for leak in leaks}
        passages.forget(ids)
        yield from (places[name] for name in ids)


def _rows(rendered: Path, shards: int, without: set[Row], train: bool) -> Iterator[tuple[Row, dict[str, Any]]]:
    """The training rows, or the others, with the columns that `Passages` reads."""
    for rank in range(shards):
        number = 0
        file = pq.ParquetFile(rendered / f"{rank:05d}.rows.parquet")
        for batch in file.iter_batches(columns=["id", "template", "prompt", "split"]):
            chosen = np.flatnonzero((batch["split"].to_numpy(zero_copy_only=False) == TRAIN) == train)
            for place, row in zip((chosen + number).tolist(), batch.take(chosen).to_pylist(), strict=True):
                if (rank, place) not in without:
                    yield (rank, place), row
            number += len(batch)
