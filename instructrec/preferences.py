"""Preference pairs without a label: right against corrupted answers, samples ranked by a reward, scored responses.

However pairs are made, `write_pairs` leaves out repeats and pairs that contradict each other, balances lengths, and
writes one folder in the contract's form (`schema.PAIR`). Pairs pass through the disk: memory holds some twenty bytes of
each, and a few answers of each family.

Pairs keep the split of the row that they are made from, and what replaces an answer comes from rows of the same split.
Rows of test_templates and test_tasks make no pairs: they stay what an adapter is evaluated on.
"""

from __future__ import annotations

import heapq
import json
import shutil
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from instructrec.core.errors import UserError, nearest
from instructrec.core.files import fingerprint, write_json, write_text
from instructrec.core.hashing import hashed
from instructrec.core.schema import (
    PAIR,
    PAIR_SPLITS,
    TEST_CORRUPTORS,
    TEST_DOCUMENTS,
    TRAIN,
    VALIDATION,
    PairsManifest,
    read_manifest,
    read_split,
)
from instructrec.corruptors import CORRUPTORS, Task, corrupt

ROW_SPLITS = (TRAIN, VALIDATION, TEST_DOCUMENTS)
"""Splits of an instruction set whose rows make pairs."""

HELD_OUT_CORRUPTORS = ("evidence_swapped", "shuffled_order")
"""Kept for test_corruptors by default: in kind like nothing that is trained. Nothing else keeps all of an answer's
words and spoils their order; nothing else quotes the text truly and in the right form, but at another place."""

PER_CORRUPTOR, HELD_OUT_PER_CORRUPTOR = 2000, 300
POOL = 256
"""Answers of each family and language that other rows can borrow."""
BORROWED = 12
"""Of them, how many a row is offered."""
BATCH = 1024

REPEATED, CONTRADICTED, BY_LENGTH, OVER_QUOTA = "repeated", "contradicted", "length_balance", "quota"

Pair = dict[str, Any]
Message = dict[str, str]


@dataclass(frozen=True)
class Limits:
    """How many pairs of one origin a split has at most, and whether as many answers are shortened as lengthened."""

    train: int = PER_CORRUPTOR
    held_out: int = HELD_OUT_PER_CORRUPTOR
    balanced: bool = True

    def of(self, split: str) -> int:
        return self.train if split == TRAIN else self.held_out


def check_held_out(names: Iterable[str]) -> tuple[str, ...]:
    """The corruptors to hold out, sorted. Raises `UserError` for one that is none, or where none would be left."""
    for name in names:
        if name not in CORRUPTORS:
            raise UserError(f"--held-out-corruptors: {name!r} is no corruptor.{nearest(name, CORRUPTORS)}")
    if len(held_out := tuple(sorted(set(names)))) == len(CORRUPTORS):
        raise UserError("--held-out-corruptors: names all of them, so that there would be no training pairs")
    return held_out


def pair(prompt: list[Message], chosen: str, rejected: str, origin: str, source: Any, margin: float | None) -> Pair:
    """One row of the contract."""
    answers = {
        key: [{"role": "assistant", "content": text}] for key, text in (("chosen", chosen), ("rejected", rejected))
    }
    return {"prompt": prompt, **answers, "margin": margin, "origin": origin, "source": source}


# --- From an instruction set


def rows_of(folder: Path, split: str, most: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of a split; with `most` that many of them, chosen by a hash of their ids and the seed."""
    chosen = None
    if most is not None:
        ids = (row["id"] for row in read_split(folder, split, ["id"]))
        chosen = set(heapq.nsmallest(most, ids, key=lambda name: hashed(seed, "row", name)))
    return (row for row in read_split(folder, split) if chosen is None or row["id"] in chosen)


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


# --- Writing


def prompt_key(prompt: list[Message]) -> int:
    """A number that stands for a prompt."""
    return hashed("prompt", json.dumps([[message["role"], message["content"]] for message in prompt]))


class _Marks:
    """What is remembered of each pair of a split, in the order in which they came."""

    def __init__(self) -> None:
        self.keys = array("Q")
        """Of a prompt and two answers, whichever is the better one."""
        self.ranks = array("Q")
        self.directions, self.signs = array("b"), array("b")
        """Which answer comes first, and whether the rejected one is longer (1), shorter (-1) or neither."""
        self.origins = array("H")

    def add(self, new: Pair, origin: int, seed: int) -> None:
        chosen, rejected = new["chosen"][-1]["content"], new["rejected"][-1]["content"]
        prompt = prompt_key(new["prompt"])
        self.keys.append(hashed(prompt, *sorted((chosen, rejected))))
        self.ranks.append(hashed(seed, new["origin"], prompt, chosen, rejected))
        self.directions.append(chosen < rejected)
        self.signs.append((len(rejected) > len(chosen)) - (len(rejected) < len(chosen)))
        self.origins.append(origin)

    def kept(self, most: int, balanced: bool, dropped: Counter[str]) -> npt.NDArray[np.bool_]:
        """Which pairs are kept: each once, none contradicted, as many of each origin as there may be."""
        keys, ranks = np.array(self.keys, np.uint64), np.array(self.ranks, np.uint64)
        keep = np.zeros(len(keys), bool)
        if not len(keys):
            return keep
        unique, first, group = np.unique(keys, return_index=True, return_inverse=True)
        turned = np.bincount(group, np.array(self.directions), len(unique))
        agreed = (turned == 0) | (turned == np.bincount(group))
        keep[first[agreed]] = True
        dropped[CONTRADICTED] += int((~agreed[group]).sum())
        dropped[REPEATED] += int(agreed[group].sum() - keep.sum())
        signs, origins = np.array(self.signs), np.array(self.origins)
        for origin in np.unique(origins):
            places = [np.flatnonzero(keep & (origins == origin) & (signs == sign)) for sign in (1, -1, 0)]
            sizes = [len(part) for part in places]
            allowed = [min(sizes[:2])] * 2 + sizes[2:] if balanced else sizes
            dropped[BY_LENGTH] += sum(sizes) - sum(allowed)
            share = min(1.0, most / max(1, sum(allowed)))
            for part, size in zip(places, allowed, strict=True):
                taken = int(size * share)
                dropped[OVER_QUOTA] += size - taken
                keep[part[np.argsort(ranks[part], kind="stable")[taken:]]] = False
        return keep


def write_pairs(
    pairs: Iterable[tuple[str, Pair]],
    folder: Path,
    plan: dict[str, Any],
    held_out: list[str],
    limits: Limits,
    seed: int,
    skipped: Counter[str],
) -> PairsManifest:
    """Write a folder of pairs: `SPLIT/00000.parquet` of every split, `manifest.json` and a card.

    Within each split and origin as many rejected answers are longer than the chosen one as shorter (equals stay), so
    that no rule of length beats a coin; which of the surplus is left out is decided by a hash.

    Args:
        pairs: (split, pair) in any order.
        plan: what they are made from and how, for the manifest.
        held_out: the corruptors that only test_corruptors has.
        skipped: what made no pair, by reason, when all have come.

    Raises:
        UserError: there is no training pair; nothing is left of the folder's files then.
    """
    work = folder / "all"
    marks = {split: _Marks() for split in PAIR_SPLITS}
    origins: dict[str, int] = {}
    writers = {}
    for split in PAIR_SPLITS:
        (work / split).mkdir(parents=True)
        (folder / split).mkdir()
        writers[split] = pq.ParquetWriter(work / split / "00000.parquet", PAIR, compression="zstd", compression_level=1)
    waiting: dict[str, list[Pair]] = {split: [] for split in PAIR_SPLITS}

    def flush(split: str) -> None:
        writers[split].write_table(pa.Table.from_pylist(waiting[split], PAIR))
        waiting[split].clear()

    for split, new in pairs:
        marks[split].add(new, origins.setdefault(new["origin"], len(origins)), seed)
        waiting[split].append(new)
        if len(waiting[split]) == BATCH:
            flush(split)
    dropped: Counter[str] = Counter()
    counts: dict[str, dict[str, int]] = {name: {} for name in sorted(origins)}
    splits = {}
    dropped.update(skipped or {})
    for split in PAIR_SPLITS:
        flush(split)
        writers[split].close()
        keep = marks[split].kept(limits.of(split), limits.balanced, dropped)
        _copy(work / split / "00000.parquet", folder / split / "00000.parquet", keep)
        splits[split] = int(keep.sum())
        found = Counter(np.array(marks[split].origins)[keep].tolist())
        for name, number in origins.items():
            counts[name] |= {split: found[number]} if found[number] else {}
    shutil.rmtree(work)
    if not splits[TRAIN]:
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items()) if n)
        raise UserError(f"pairs: there is no training pair ({why or 'none could be made'}); give more rows")
    manifest = PairsManifest(
        plan=plan,
        splits=splits,
        origins=counts,
        dropped={reason: n for reason, n in sorted(dropped.items()) if n},
        held_out=held_out,
        versions={package: version(package) for package in ("instructrec", "numpy", "pyarrow", "pycld2", "sentencex")},
        seed=seed,
        fingerprint=fingerprint(folder, "*.parquet"),
    )
    write_json(folder / "manifest.json", manifest)
    write_text(folder / "README.md", _card(manifest))
    return manifest


def _card(manifest: PairsManifest) -> str:
    """A card by which `datasets.load_dataset(folder)` finds the splits."""
    files = [{"split": split, "path": f"{split}/*.parquet"} for split in PAIR_SPLITS]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]}, sort_keys=False)
    origins = "".join(f"| {name} | {sum(found.values())} |\n" for name, found in manifest["origins"].items())
    table = f"| origin | pairs |\n| --- | ---: |\n{origins}"
    return f"---\n{head}---\n# Preference pairs\n\nMade by `instructrec pairs`.\n\n{table}"


def _copy(source: Path, target: Path, keep: npt.NDArray[np.bool_]) -> None:
    """Copy the rows of a file that are kept."""
    start = 0
    with pq.ParquetWriter(target, PAIR, compression="zstd") as writer:
        for batch in pq.ParquetFile(source).iter_batches(BATCH):
            part = batch.filter(pa.array(keep[start : start + len(batch)]))
            start += len(batch)
            if len(part):
                writer.write_batch(part)


def read_pairs_manifest(folder: Path) -> PairsManifest:
    """The manifest of a folder of pairs. Raises `UserError` where it has none or another folder's."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: holds no pairs (no manifest.json); make them with `instructrec pairs`") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); make the pairs again") from None
    if missing := sorted(PairsManifest.__required_keys__ - manifest.keys()):
        raise UserError(
            f"{folder}: not a folder of pairs (its manifest has no {missing[0]!r}); see `instructrec pairs`"
        )
    return manifest


def describe_pairs_source(folder: Path) -> dict[str, Any]:
    """What a plan says of an instruction set: which one it is, wherever it lies."""
    return {"set": folder.resolve().name, "fingerprint": read_manifest(folder)["fingerprint"]}
