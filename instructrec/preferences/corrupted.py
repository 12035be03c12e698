"""Right answers of an instruction set against corrupted ones, without a model.

Each row meets every corruptor of its split. What replaces an answer, or a part of it, is from the row itself or from
rows of the same split: memory holds a few answers of each family.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from instructrec.core.errors import UserError, nearest
from instructrec.core.hashing import hashed
from instructrec.core.schema import TEST_CORRUPTORS, TEST_DOCUMENTS, read_split
from instructrec.preferences.corruptors import CORRUPTORS, Task, corrupt
from instructrec.preferences.rows import ROW_SPLITS, rows_of
from instructrec.preferences.write import Pair, pair

HELD_OUT_CORRUPTORS = ("evidence_swapped", "shuffled_order")
"""Kept for test_corruptors by default: in kind like nothing that is trained. Nothing else keeps all of an answer's
words and spoils their order; nothing else quotes the text truly and in the right form, but at another place."""

POOL = 256
"""Answers of each family and language that other rows can borrow."""
BORROWED = 12
"""Of them, how many a row is offered."""


def check_held_out(names: Iterable[str]) -> tuple[str, ...]:
    """The corruptors to hold out, sorted. Raises `UserError` for one that is none, or where none would be left."""
    for name in names:
        if name not in CORRUPTORS:
            raise UserError(f"--held-out-corruptors: {name!r} is no corruptor.{nearest(name, CORRUPTORS)}")
    if len(held_out := tuple(sorted(set(names)))) == len(CORRUPTORS):
        raise UserError("--held-out-corruptors: names all of them, so that there would be no training pairs")
    return held_out


class _Pools:
    """Answers that rows of a split can borrow: up to `POOL` of each family and language, chosen by a hash."""

    def __init__(self, folder: Path, split: str, seed: int) -> None:
        self._pools: dict[str, dict[str, list[tuple[int, str, Any]]]] = defaultdict(lambda: defaultdict(list))
        columns = ["id", "completion", "family", "language", "choices", "source"]
        for row in read_split(folder, split, columns):
            if row["choices"]:
                continue
            pool = self._pools[row["family"]][row["language"]]
            entry = (-hashed(seed, "pool", row["id"]), row["completion"][0]["content"], _places(row))
            if len(pool) < POOL:
                heapq.heappush(pool, entry)
            elif entry[0] > pool[0][0]:
                heapq.heapreplace(pool, entry)
        for languages in self._pools.values():
            for pool in languages.values():
                pool.sort()

    def borrowed(self, row: dict[str, Any], rng: Random) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Answers from elsewhere in the row's language, and in others."""
        languages = self._pools.get(row["family"], {})
        own = languages.get(row["language"], [])
        foreign = [entry for name in sorted(languages) if name != row["language"] for entry in languages[name]]
        here = _places(row)
        found = []
        for pool in (own, foreign):
            drawn = rng.sample(pool, min(len(pool), BORROWED))
            found.append(tuple(text for _, text, places in drawn if not _overlap(here, places)))
        return found[0], found[1]


def _places(row: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(source["sha256"], source["start"], source["end"]) for source in row["source"]]


def _overlap(a: list[tuple[str, int, int]], b: list[tuple[str, int, int]]) -> bool:
    return any(x[0] == y[0] and x[1] < y[2] and y[1] < x[2] for x in a for y in b)


def task_of(row: dict[str, Any], others: tuple[str, ...] = (), foreign: tuple[str, ...] = ()) -> Task:
    """What corruptors see of a row of an instruction set."""
    return Task(
        prompt="\n\n".join(message["content"] for message in row["prompt"]),
        answer=row["completion"][0]["content"],
        targets=tuple(row["targets"]),
        choices=tuple(row["choices"]) if row["choices"] else None,
        checks=row["checks"],
        family=row["family"],
        group=row["group"],
        language=row["language"],
        others=others,
        foreign=foreign,
    )


def corrupted(folder: Path, held_out: Iterable[str], most: int | None, seed: int) -> Iterator[tuple[str, Pair]]:
    """(split, pair): every row with each corruptor of its split that has a wrong answer for it.

    What a corruptor makes of a row depends on the row's id, the seed, and the answers it can borrow from the split.
    """
    held_out = set(held_out)
    for split in ROW_SPLITS:
        pools = _Pools(folder, split, seed)
        names = [name for name in CORRUPTORS if split == TEST_DOCUMENTS or name not in held_out]
        for row in rows_of(folder, split, most, seed):
            task = task_of(row, *pools.borrowed(row, Random(hashed(seed, "borrow", row["id"]))))
            for name in names:
                rejected = corrupt(name, task, Random(hashed(seed, name, row["id"])))
                if rejected is not None:
                    place = TEST_CORRUPTORS if name in held_out else split
                    yield place, pair(row["prompt"], task.answer, rejected, name, row["source"], None)
