"""Overlaps of a build's rows, found on disk part by part: the same as in memory, whatever is in memory at once."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_builders import overlaps
from data_builders.overlaps import NgramWriter, drop_overlaps
from data_builders.splits import hashed
from instructrec.core.passages import Passages, passage_of
from instructrec.core.schema import TEST_DOCUMENTS, TRAIN, VALIDATION

WORDINGS = [
    "Read the text that stands below this line from its beginning to its end and then say what it is about: {}",
    "{}\n\nOf all that has been said above, what would you tell to somebody who has only one minute to listen to you?",
    "What is this? {}",
]


def rendered_rows(seed: int) -> list[list[dict]]:
    """Three shards of rows in a few wordings; some training rows have most of a held-out row's passage, some all."""
    rng = random.Random(seed)
    words = [f"{a}{b}" for a in ("ba", "du", "ki", "lo", "me") for b in ("ran", "shi", "to", "vel", "zu", "7", "12")]
    passages = [rng.choices(words, k=rng.randint(5, 60)) for _ in range(90)]
    rows = []
    for number in range(300):
        passage = [*passages[rng.randrange(90)]] if rng.random() < 0.3 else rng.choices(words, k=rng.randint(5, 60))
        if rng.random() < 0.5:
            passage[rng.randrange(len(passage))] = "changed"
        wording = rng.randrange(3)
        prompt = [{"role": "user", "content": WORDINGS[wording].format(" ".join(passage))}]
        split = rng.choice([TRAIN, TRAIN, TRAIN, VALIDATION, TEST_DOCUMENTS])
        rows.append({"id": f"{number:032x}", "template": f"t.en.{wording}", "split": split, "prompt": prompt})
    return [rows[:120], rows[120:121], rows[121:]]


def write(folder: Path, shards: list[list[dict]]) -> None:
    for rank, rows in enumerate(shards):
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{rank:05d}.rows.parquet")
        np.save(folder / f"{rank:05d}.prompts.npy", np.array([hashed(passage_of(row)) for row in rows], np.uint64))
        writer = NgramWriter(folder, rank)
        for start in range(0, len(rows), 50):
            writer.add([passage_of(row) for row in rows[start : start + 50]])
        writer.close()


def in_memory(shards: list[list[dict]], without: set[tuple[int, int]]) -> set[tuple[int, int]]:
    rows = [((r, n), row) for r, rows in enumerate(shards) for n, row in enumerate(rows) if (r, n) not in without]
    passages, places = Passages(), {row["id"]: place for place, row in rows}
    for _, row in rows:
        if row["split"] != TRAIN:
            passages.hold_out(row)
    for _, row in rows:
        if row["split"] == TRAIN:
            passages.train(row)
    found: set[str] = set()
    while leaks := {leak.train for leak in passages.leaks()}:
        passages.forget(leaks)
        found |= leaks
    return {places[name] for name in found}


@pytest.mark.parametrize("at_once", [200, 3_000, 2_000_000])
@pytest.mark.parametrize("seed", range(4))
def test_parts_on_disk_find_what_all_rows_in_memory_do(tmp_path, monkeypatch, seed, at_once):
    monkeypatch.setattr(overlaps, "NGRAMS_IN_MEMORY", at_once)
    shards = rendered_rows(seed)
    write(tmp_path, shards)
    asked = []

    def backwards(step, parts, marks):
        asked.append(parts)
        for part in reversed(range(parts)):
            step(part)
            assert json.loads((marks / f"{part:05d}.json").read_text())["n-grams"] >= 0

    drop_overlaps(tmp_path, len(shards), repeats=True, compare=backwards)
    assert (asked[0] > 1) == (at_once < 10_000)
    assert len(asked) > 1  # the last search finds nothing
    dropped = {"duplicate": set(), "near_duplicate": set()}
    for rank in range(len(shards)):
        for number, gate in json.loads((tmp_path / f"{rank:05d}.dropped.json").read_text()):
            dropped[gate].add((rank, number))
    assert dropped["near_duplicate"]
    assert dropped["near_duplicate"] == in_memory(shards, dropped["duplicate"])


def test_a_shard_without_rows(tmp_path):
    columns = pa.schema([("id", pa.string()), ("template", pa.string()), ("split", pa.string())])
    pq.write_table(columns.empty_table(), tmp_path / "00000.rows.parquet")
    np.save(tmp_path / "00000.prompts.npy", np.zeros(0, np.uint64))
    NgramWriter(tmp_path, 0).close()
    drop_overlaps(tmp_path, 1, repeats=True)
    assert json.loads((tmp_path / "00000.dropped.json").read_text()) == []
