"""What only all rows together show: prompts that repeat, and training rows that hold a held-out row's passage.

Both are external: hashes lie on disk, shard by shard, and are compared one range of values after another, so that what
is in memory does not grow with the corpus but by a few bytes a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from data_builders.engine import apart
from instructrec.core.files import atomic, write_json
from instructrec.core.overlap import Hashes
from instructrec.core.parquet import batches
from instructrec.core.passages import BATCH, Ngrams, is_leak, joined, ngrams_of, shared_ngrams, wording_ngrams
from instructrec.core.schema import TRAIN

PROMPTS_IN_MEMORY = 4_000_000
NGRAMS_IN_MEMORY = 800_000
"""A part has about so many, and a shard's renderer collects a quarter of it before they are written."""

Row = tuple[int, int]
"""Shard and number of a rendered row."""

Compare = Callable[[Callable[[int], None], int, Path], None]
"""Does a step for each of so many parts, which leave their marks in a folder, in any order."""

_STORED = np.dtype([("alike", np.uint64), ("exact", np.uint64), ("row", np.int64)])
BYTES_OF_PART = NGRAMS_IN_MEMORY * _STORED.itemsize


def in_turn(step: Callable[[int], None], parts: int, marks: Path) -> None:
    """A `Compare` in this process."""
    for part in range(parts):
        step(part)


def drop_overlaps(rendered: Path, shards: int, repeats: bool, compare: Compare = in_turn) -> None:
    """Write `RANK.dropped.json` for each shard: [row, gate] of the rows that must not be written.

    Args:
        rendered: folder of the rendered shards.
        shards: how many there are.
        repeats: whether a prompt that occurred before is dropped (the `duplicate` gate). Passages are always looked
            for, because a set with a leak is no set to train on.
        compare: what compares the passages; the result does not depend on it.
    """
    dropped: dict[Row, str] = dict.fromkeys(repeated_prompts(rendered, shards) if repeats else (), "duplicate")
    dropped |= dict.fromkeys(leaking_rows(rendered, shards, set(dropped), compare), "near_duplicate")
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


class NgramWriter:
    """Writes the n-grams of a shard's rows in sorted runs, `RANK.RUN.ngrams`, each an array of `_STORED`."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank
        self.rows = self.runs = 0
        self._found: list[Ngrams] = []

    def add(self, passages: Sequence[str]) -> None:
        """Take in the next rows, as `passage_of` gives them."""
        for start in range(0, len(passages), BATCH):
            self._found.append(ngrams_of(passages[start : start + BATCH], self.rows + start))
        self.rows += len(passages)
        if sum(len(found.row) for found in self._found) > NGRAMS_IN_MEMORY // 4:
            self.close()

    def close(self) -> None:
        """Write what has not been written."""
        if not self._found:
            return
        found = joined(self._found)
        self._found.clear()
        found = found.at(np.argsort(found.alike, kind="stable"))
        run = np.empty(len(found.row), _STORED)
        run["alike"], run["exact"], run["row"] = found.alike, found.exact, found.row
        with atomic(self.folder / f"{self.rank:05d}.{self.runs:03d}.ngrams") as temporary:
            run.tofile(temporary)
        self.runs += 1


@dataclass(frozen=True)
class _Rows:
    """What is known of all rendered rows, (rows,), in the order of shards.

    Attributes:
        starts: (shards + 1,) number of each shard's first row.
        held_out: whether it is held out.
        kept: whether it has not been dropped.
        wordings: number of its wording.
    """

    starts: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.bool_]
    wordings: npt.NDArray[np.int64]

    @classmethod
    def read(cls, rendered: Path, shards: int, without: set[Row]) -> _Rows:
        numbers: dict[str, int] = {}
        counts, held_out, wordings = [0], [np.zeros(0, bool)], [np.zeros(0, np.int64)]
        for rank in range(shards):
            counts.append(0)
            for batch in batches(rendered / f"{rank:05d}.rows.parquet", ["template", "split"]):
                names = batch["template"].dictionary_encode()
                number = [numbers.setdefault(name, len(numbers)) for name in names.dictionary.to_pylist()]
                wordings.append(np.array(number, np.int64)[names.indices.to_numpy()])
                held_out.append(pc.not_equal(batch["split"], TRAIN).to_numpy(zero_copy_only=False))
                counts[-1] += len(batch)
        starts = np.cumsum(counts)
        kept = np.ones(starts[-1], bool)
        kept[[starts[shard] + row for shard, row in without]] = False
        return cls(starts, np.concatenate(held_out), kept, np.concatenate(wordings))


def leaking_rows(rendered: Path, shards: int, without: set[Row], compare: Compare) -> Iterator[Row]:
    """The training rows that hold the passage of a held-out row, though they come from another document."""
    rows = apart(_Rows.read, rendered, shards, without)
    runs = [(path, rank) for rank in range(shards) for path in sorted(rendered.glob(f"{rank:05d}.*.ngrams"))]
    parts = sum(path.stat().st_size for path, _ in runs) // _STORED.itemsize // NGRAMS_IN_MEMORY + 1
    # Where each part begins in each run, and the last ends.
    values = np.array([2**64 * part // parts for part in range(1, parts)], np.uint64)
    edges = np.zeros((len(runs), parts + 1), np.int64)
    for number, (path, _) in enumerate(runs):
        alike = np.fromfile(path, _STORED)["alike"]
        edges[number, 1:] = *np.searchsorted(alike, values), len(alike)
    for search in count():
        folder = rendered / f"overlaps-{search}"
        folder.mkdir(exist_ok=True)
        with atomic(folder / "rows.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, edges=edges, **vars(rows))
        compare(partial(_compare, runs, folder), parts, folder)
        found = _leaking(folder, parts, len(rows.kept))
        if not len(found):
            return
        shard = np.searchsorted(rows.starts, found, side="right") - 1
        yield from zip(shard.tolist(), (found - rows.starts[shard]).tolist(), strict=True)
        rows.kept[found] = False  # and n-grams that looked like a wording's may now turn out to be a passage's


def _compare(runs: Sequence[tuple[Path, int]], folder: Path, part: int) -> None:
    """Count the n-grams of one range of values that rows share: `PART.npz`, and last `PART.json`, in `folder`."""
    with np.load(folder / "rows.npz") as stored:
        first, last = stored["edges"][:, part : part + 2].T.tolist()
        rows = _Rows(*(stored[field.name] for field in fields(_Rows)))
    found = [ngrams_of([])]
    for (path, rank), start, end in zip(runs, first, last, strict=True):
        run = np.fromfile(path, _STORED, end - start, offset=start * _STORED.itemsize)
        ngrams = Ngrams(run["row"] + rows.starts[rank], run["exact"], run["alike"])
        found.append(ngrams.at(rows.kept[ngrams.row]))
    ngrams = joined(found)
    held_out = rows.held_out[ngrams.row]
    # Only what held-out rows have too can be shared.
    known = Hashes(ngrams.alike[held_out]).places(ngrams.alike)
    ngrams, held_out = ngrams.at(known), held_out[known]
    totals = np.bincount(rows.wordings[rows.kept], minlength=int(rows.wordings.max(initial=0)) + 1)
    wording = wording_ngrams(ngrams, rows.wordings, totals)
    compared, train = ngrams.at(held_out).without(wording), ngrams.at(~held_out).without(wording)
    pairs = np.stack(shared_ngrams(compared, train))
    counts = np.stack(np.unique(compared.row, return_counts=True))
    with atomic(folder / f"{part:05d}.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, pairs=pairs, counts=counts)
    write_json(folder / f"{part:05d}.json", {"n-grams": len(held_out)})


def _leaking(folder: Path, parts: int, rows: int) -> npt.NDArray[np.int64]:
    """The training rows of which all parts together say that they hold a held-out row's passage."""
    found, per_row = [], np.zeros(rows, np.int64)
    for part in range(parts):
        with np.load(folder / f"{part:05d}.npz") as stored:
            found.append(stored["pairs"])
            row, counts = stored["counts"]
        per_row[row] += counts
    held_out, train, counts = np.concatenate(found, axis=1)
    pairs, place = np.unique(held_out * rows + train, return_inverse=True)
    shared = np.bincount(place, counts, len(pairs))
    held_out, train = np.divmod(pairs, max(rows, 1))
    return np.unique(train[is_leak(shared, shared / per_row[held_out])])
