"""The build: corpus → shards → mined examples → hold-out → rendered rows → instruction set.

Mining, rendering and writing are pure functions of one shard and run in any number of processes; the hold-out between
them is made from small tables of units. So the output depends on the corpus, the config and the seed alone. Everything
happens in `<output>.partial`, which a killed build leaves behind and the next one continues; the finished set appears
under its name by a single rename.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.card import card
from data_builders.config import BuildConfig
from data_builders.documents import corpus_files, splittable
from data_builders.engine import run_stage
from data_builders.mining import Piece, mine_shard
from data_builders.rendering import KEPT_REJECTS, contamination, duplicates, held_out, render_shard, write_shard
from data_builders.splits import TEST, assign_units
from instructrec.core.errors import UserError
from instructrec.core.files import atomic, fingerprint, locked, write_json, write_text
from instructrec.core.minhash import SLOTS
from instructrec.core.schema import INSTRUCTION, SPLITS, TRAIN, VALIDATION, Manifest, read_manifest

PACKAGES = (
    *("instructrec", "datatrove", "jinja2", "numpy", "orjson"),
    *("phonenumbers", "polib", "pyarrow", "pycld2", "sentencex"),
)
SHARD_BYTES, MOST_SHARD_BYTES, SHARDS = 4 << 20, 64 << 20, 64
"""A shard has 4 MiB at least and 64 MiB at most; between them a corpus is cut into about 64."""

PROMPTS_IN_MEMORY = 4_000_000


def plan_shards(inventory: list[list[Any]], files: list[tuple[Path, str]]) -> tuple[list[list[Piece]], list[int]]:
    """Cut the sorted files into shards of about equal bytes: small files together, large ones by byte ranges.

    Returns:
        The pieces of each shard, and the bytes of each shard.
    """
    total = sum(entry[1] or 0 for entry in inventory)
    target = min(max(total // SHARDS, SHARD_BYTES), MOST_SHARD_BYTES)
    shards: list[list[Piece]] = []
    sizes: list[int] = []
    for (path, name), (_, size, _) in zip(files, inventory, strict=True):
        length = size or 0
        parts = max(1, -(-length // target)) if splittable(path) else 1
        for part in range(parts):
            start, end = length * part // parts, length * (part + 1) // parts
            if not shards or sizes[-1] + end - start > target:
                shards.append([])
                sizes.append(0)
            shards[-1].append((str(path), name, start, end if parts > 1 else None))
            sizes[-1] += end - start
    return shards, sizes


def hold_out(mined: Path, folder: Path, shards: int, config: BuildConfig) -> dict[str, Any]:
    """Second stage: decide the side of every unit and how much of every family is kept; write it for the renderers.

    Returns:
        For the manifest: `documents`, `bytes`, `near_duplicates` (how many), and the names of held-out units.
    """
    tables = [pq.read_table(mined / f"{rank:05d}.units.parquet") for rank in range(shards)]
    units = pa.concat_tables(tables)
    names, kinds = units["unit"].to_pylist(), units["kind"].to_pylist()
    found = [json.loads(text) for text in units["found"].to_pylist()]
    productive = [i for i, families in enumerate(found) if families]
    marks = b"".join(units["signature"][i].as_py() for i in productive)
    sides, first = assign_units(
        [names[i] for i in productive],
        [kinds[i] for i in productive],
        np.frombuffer(marks, np.uint32).reshape(-1, SLOTS),
        config.seed,
        config.validation_documents,
        config.test_documents,
    )
    repeated = {i for place, i in enumerate(productive) if first[place] != place}
    drop = repeated if "near_duplicate" in config.gates else set()
    by_unit: list[str | None] = [None] * len(names)
    rows: Counter[tuple[str, str]] = Counter()
    answer_words: Counter[tuple[str, str]] = Counter()
    for i, side in zip(productive, sides, strict=True):
        if i in drop:
            continue
        by_unit[i] = side
        for family, (n, words) in found[i].items():
            rows[family, side] += n
            answer_words[family, side] += words
    rates = []
    for (family, side), n in sorted(rows.items()):
        weight = config.weights.get(family, 1.0) if side == TRAIN else 1.0
        rate = weight * (config.rows_per_family if side == TRAIN else config.heldout_rows_per_family) / n
        if side == TRAIN:
            rate = min(rate, weight * config.answer_words_per_family / max(answer_words[family, side], 1))
        rates.append([family, side, min(rate, 1.0)])
    write_json(folder / "rates.json", rates)
    start = 0
    for rank, table in enumerate(tables):
        write_json(folder / f"{rank:05d}.json", by_unit[start : start + len(table)])
        start += len(table)
    return {
        "documents": sum(units["documents"].to_pylist()),
        "bytes": sum(units["bytes"].to_pylist()),
        "near_duplicates": len(repeated),
        "held_out": sorted(names[i] for i in productive if by_unit[i] in (TEST, VALIDATION)),
    }


def build(
    config: BuildConfig, output: Path, workers: int, finish: Callable[[Path], None], engine: str = "local"
) -> Manifest:
    """Build an instruction set, or continue a build that was interrupted.

    Args:
        config: what to build.
        output: the set's folder; it appears when the set is complete.
        workers: processes at most; the result does not depend on it.
        finish: called with the complete folder just before it gets its final name.
        engine: `local` or `ray`; the result does not depend on it.

    Returns:
        The manifest. A finished set of the same corpus and config is left as it is.

    Raises:
        UserError: no corpus, no usable document, a full disk, another build at work, or `output` holds something else.
    """
    files = corpus_files(config.corpus)
    plan: dict[str, Any] = {
        "config": config.portable(),
        "evaluations": evaluations.fingerprint if (evaluations := contamination(config.decontaminate)) else None,
        "files": _inventory(files),
        "versions": {package: version(package) for package in PACKAGES},
    }
    plan = json.loads(json.dumps(plan))
    if output.exists():
        if _is_current(output, config.corpus, plan):
            return read_manifest(output)
        raise UserError(
            f"{output}: holds an instruction set of another corpus or config; choose another --output or delete it"
        )
    _refuse_nested(config.corpus, output)
    lock = output.with_name(f".{output.name}.lock")
    try:
        with locked(lock, wait=False):
            manifest = _build(config, files, plan, output, workers, finish, engine)
            lock.unlink()
    except BlockingIOError:
        raise UserError(f"{output}: another build is writing it; wait for it or choose another --output") from None
    return manifest


def _refuse_nested(corpus: str, output: Path) -> None:
    """Raise `UserError` if a build would write into the corpus that it reads."""
    place = Path(corpus)
    if place.is_dir() and output.resolve().is_relative_to(place.resolve()):
        raise UserError(f"--output {output}: lies inside the corpus {corpus!r}; choose a folder outside of it")


def _build(
    config: BuildConfig,
    files: list[tuple[Path, str]],
    plan: dict[str, Any],
    output: Path,
    workers: int,
    finish: Callable[[Path], None],
    engine: str,
) -> Manifest:
    """Run or continue the build described by `plan`; the caller holds the lock."""
    partial = output.with_name(f"{output.name}.partial")
    plan_file = partial / "plan.json"
    if not plan_file.exists() or json.loads(plan_file.read_text(encoding="utf-8")) != plan:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_json(plan_file, plan)
    shards, sizes = plan_shards(plan["files"], files)
    try:
        manifest = _run_stages(config, shards, sizes, partial, workers, engine)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"{partial}: the disk is full; free some space and run the same command again") from None
    folder = partial / "set"
    manifest["corpus"] |= {"inventory": _digest(plan["files"]), "evaluations": plan["evaluations"]}
    if not sum(manifest["splits"].values()):
        reasons = ", ".join(f"{n} {reason}" for reason, n in manifest["corpus"]["skipped"].items())
        shutil.rmtree(partial)
        raise UserError(
            f"corpus {config.corpus!r}: no instruction could be mined from {manifest['corpus']['documents']} documents"
            f" (skipped files: {reasons or 'none'}); prose needs paragraphs of 30 to 110 words in a language with"
            " templates, code needs documented functions"
        )
    write_json(folder / "manifest.json", manifest)
    write_text(folder / "README.md", card(folder, manifest))
    write_text(folder / _BUILT_FROM, _built_from(config.corpus, plan))
    finish(folder)
    folder.rename(output)
    shutil.rmtree(partial)
    return manifest


def _run_stages(
    config: BuildConfig, shards: list[list[Piece]], sizes: list[int], partial: Path, workers: int, engine: str
) -> Manifest:
    """All stages, each skipping the shards it has done before; leaves the set without manifest in `partial/set`."""
    ranks = range(len(shards))
    mined, sides, rendered, written, folder = (
        partial / name for name in ("mined", "sides", "rendered", "written", "set")
    )
    for place in (mined, sides, rendered, written, *(folder / split for split in SPLITS)):
        place.mkdir(parents=True, exist_ok=True)

    def stage(title: str, step: Callable[[int], None], marks: list[Path]) -> None:
        run_stage(title, step, sizes, marks, partial / "logs" / title, workers, engine)

    stage(
        "mining",
        lambda rank: mine_shard(shards[rank], config, mined, rank),
        [mined / f"{rank:05d}.skipped.json" for rank in ranks],
    )
    facts = hold_out(mined, sides, len(shards), config)
    stage(
        "rendering",
        lambda rank: render_shard(mined, sides, rendered, rank, config),
        [rendered / f"{rank:05d}.json" for rank in ranks],
    )
    repeated: list[set[int]] = [set() for _ in ranks]
    if "duplicate" in config.gates:
        rows = sum(np.load(rendered / f"{rank:05d}.prompts.npy", mmap_mode="r").size for rank in ranks)
        repeated = duplicates(rendered, len(shards), rows // PROMPTS_IN_MEMORY + 1)
    stage(
        "writing",
        lambda rank: write_shard(rendered, folder, written, rank, repeated[rank]),
        [written / f"{rank:05d}.json" for rank in ranks],
    )
    return _summarise(config, mined, rendered, written, folder, len(shards), facts)


def _summarise(
    config: BuildConfig, mined: Path, rendered: Path, written: Path, folder: Path, shards: int, facts: dict[str, Any]
) -> Manifest:
    """Add up what the shards counted, write the lists of skipped files and kept rejects, and make the manifest."""
    rows: Counter[tuple[str, str]] = Counter()
    splits: Counter[str] = Counter()
    rejected: Counter[tuple[str, str]] = Counter()
    samples: list[tuple[int, str]] = []
    skipped: list[dict[str, str]] = []
    for rank in range(shards):
        skipped += json.loads((mined / f"{rank:05d}.skipped.json").read_text(encoding="utf-8"))
        record = json.loads((rendered / f"{rank:05d}.json").read_text(encoding="utf-8"))
        samples += [(key, text) for key, text in record["samples"]]
        for family, gate, n in record["rejected"]:
            rejected[family, gate] += n
        record = json.loads((written / f"{rank:05d}.json").read_text(encoding="utf-8"))
        for split, family, language, n in record["counts"]:
            splits[split] += n
            rows[family, language] += n
        for family, n in record["repeated"].items():
            rejected[family, "duplicate"] += n
    for split in SPLITS:
        if not any((folder / split).iterdir()):
            with atomic(folder / split / "00000.parquet") as temporary:
                pq.write_table(INSTRUCTION.empty_table(), temporary)
    kept: Counter[tuple[str, str]] = Counter()
    lines = []
    for _, text in sorted(samples):
        entry = json.loads(text)
        kept[entry["family"], entry["gate"]] += 1
        if kept[entry["family"], entry["gate"]] <= KEPT_REJECTS:
            lines.append((entry["family"], entry["gate"], text))
    write_text(folder / "rejected.jsonl", "".join(f"{text}\n" for *_, text in sorted(lines)))
    write_text(folder / "skipped.jsonl", "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in skipped))
    return Manifest(
        corpus={
            "documents": facts["documents"],
            "bytes": facts["bytes"],
            "skipped": dict(sorted(Counter(entry["reason"] for entry in skipped).items())),
            "near_duplicates": facts["near_duplicates"],
        },
        splits={split: splits[split] for split in SPLITS},
        families={
            family.name: {
                "kind": family.kind,
                "group": family.group,
                "rows": sum(n for (name, _), n in rows.items() if name == family.name),
                "languages": {code: n for (name, code), n in sorted(rows.items()) if name == family.name},
                "rejected": {gate: n for (name, gate), n in sorted(rejected.items()) if name == family.name},
            }
            for family in config.mined_families
        },
        held_out={
            "families": sorted(f.name for f in config.mined_families if f.group in config.held_out_groups),
            "templates": sorted(held_out(config)),
            "documents": facts["held_out"],
        },
        config=config.portable(),
        versions={package: version(package) for package in PACKAGES},
        seed=config.seed,
        fingerprint=fingerprint(folder, "*.parquet"),
    )


def _inventory(files: list[tuple[Path, str]]) -> list[list[Any]]:
    """Name, size in bytes and modification time in ns of every file; nulls for one that cannot be looked at."""
    inventory: list[list[Any]] = []
    for path, name in files:
        try:
            stat = path.stat()
        except OSError:
            inventory.append([name, None, None])
        else:
            inventory.append([name, stat.st_size, stat.st_mtime_ns])
    return inventory


_BUILT_FROM = ".built_from"
"""A digest in the set's folder of the corpus's place and its files' sizes and exact times; it says nothing in clear."""


def _built_from(corpus: str, plan: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([str(Path(corpus).resolve()), plan], sort_keys=True).encode()).hexdigest()


def _is_current(output: Path, corpus: str, plan: dict[str, Any]) -> bool:
    """Whether a finished set was built by this plan from this very place, and no file changed since."""
    read_manifest(output)
    mark = output / _BUILT_FROM
    return mark.exists() and mark.read_text(encoding="utf-8") == _built_from(corpus, plan)


def _digest(inventory: list[list[Any]]) -> str:
    """SHA-256 over names and sizes."""
    return hashlib.sha256(json.dumps([entry[:2] for entry in inventory]).encode("utf-8", "replace")).hexdigest()
