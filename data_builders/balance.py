"""Which examples of a family are kept: those of the smallest keys, up to its maximum of rows and of answer words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from data_builders.config import BuildConfig
from instructrec.core.schema import TRAIN

Kept = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]
"""Keys in order, and the words of each one's answer."""


def limits(mined: Path, sides: Path, shards: int, config: BuildConfig) -> list[tuple[str, str, int]]:
    """(family, side, largest key to keep) wherever a maximum is reached; 0 where nothing is kept.

    Keys are hashes, so the kept examples are a sample without an order. No more than the maximum is in memory.
    """
    kept: dict[tuple[str, str], Kept] = {}
    full: set[tuple[str, str]] = set()
    for rank in range(shards):
        by_unit = np.array([side or "" for side in json.loads((sides / f"{rank:05d}.json").read_text())], object)
        columns = ["unit", "family", "key", "words"]
        table = pq.read_table(mined / f"{rank:05d}.examples.parquet", columns=columns)
        unit, family, key, words = (table[name].to_numpy() for name in columns)
        side = by_unit[unit] if len(unit) else unit
        for place in sorted(set(zip(family.tolist(), side.tolist(), strict=True))):
            if place[1]:
                chosen = (family == place[0]) & (side == place[1])
                old = kept.get(place, (np.zeros(0, np.uint64), np.zeros(0, np.int64)))
                both = np.concatenate([old[0], key[chosen]]), np.concatenate([old[1], words[chosen]])
                kept[place] = _smallest(*both, *maximum(place, config))
                if len(kept[place][0]) < len(both[0]):
                    full.add(place)
    return [(*place, int(kept[place][0][-1]) if len(kept[place][0]) else 0) for place in sorted(full)]


def maximum(place: tuple[str, str], config: BuildConfig) -> tuple[int, float]:
    """Rows and answer words of a family on a side at most."""
    family, side = place
    if side != TRAIN:
        return config.heldout_rows_per_family, float("inf")
    weight = config.weights.get(family, 1.0)
    return round(weight * config.rows_per_family), weight * config.answer_words_per_family


def _smallest(keys: npt.NDArray[np.uint64], words: npt.NDArray[np.int64], rows: int, most: float) -> Kept:
    """The smallest keys: `rows` of them, and no more than have `most` words together."""
    order = np.argsort(keys, kind="stable")[:rows]
    order = order[np.cumsum(words[order]) <= most]
    return keys[order], words[order]
