"""One folder of preference pairs in the contract's form (`schema.PAIR`), however they are made.

Repeats and pairs that contradict each other are left out, and lengths are balanced. Pairs pass through the disk: memory
holds some twenty bytes of each.
"""

from __future__ import annotations

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint, write_json, write_text
from instructrec.core.hashing import hashed
from instructrec.core.parquet import batches
from instructrec.core.schema import PAIR, PAIR_SPLITS, SIDES, TRAIN, PairsManifest
from instructrec.preferences import HELD_OUT_PER_ORIGIN, PER_ORIGIN

BATCH = 1024

REPEATED, CONTRADICTED, BY_LENGTH, OVER_QUOTA = "repeated", "contradicted", "length_balance", "quota"

Pair = dict[str, Any]
Message = dict[str, str]


@dataclass(frozen=True)
class Limits:
    """How many pairs of one origin a split has at most, and whether as many answers are shortened as lengthened."""

    train: int = PER_ORIGIN
    held_out: int = HELD_OUT_PER_ORIGIN
    balanced: bool = True

    def of(self, split: str) -> int:
        return self.train if split == TRAIN else self.held_out


def pair(prompt: list[Message], chosen: str, rejected: str, origin: str, source: Any, margin: float | None) -> Pair:
    """One row of the contract."""
    texts = zip(SIDES, (chosen, rejected), strict=True)
    answers = {side: [{"role": "assistant", "content": text}] for side, text in texts}
    return {"prompt": prompt, **answers, "margin": margin, "origin": origin, "source": source}


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
        self.origins = array("I")

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
        parts = [signs == sign for sign in (1, -1, 0)] if balanced else [np.ones(len(signs), bool)]
        for origin in np.unique(origins):
            places = [np.flatnonzero(keep & (origins == origin) & part) for part in parts]
            sizes = [len(part) for part in places]
            allowed = [min(sizes[:2])] * 2 + sizes[2:] if balanced else sizes
            dropped[BY_LENGTH] += sum(sizes) - sum(allowed)
            total = sum(allowed)
            for part, size in zip(places, allowed, strict=True):
                taken = size * min(most, total) // max(1, total)
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
    dropped.update(skipped)
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
        for batch in batches(source):
            part = batch.filter(pa.array(keep[start : start + len(batch)]))
            start += len(batch)
            if len(part):
                writer.write_batch(part)
