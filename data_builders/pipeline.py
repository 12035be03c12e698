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
import os
import shutil
import stat
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_builders.balance import limits
from data_builders.card import card
from data_builders.config import BuildConfig
from data_builders.documents import corpus_files, readable, splittable
from data_builders.engine import Stage, apart, run_stage, settle
from data_builders.mining import Piece, mine_shard
from data_builders.overlaps import BYTES_OF_PART, drop_overlaps
from data_builders.rejects import KEPT_REJECTS
from data_builders.rendering import contamination, held_out, render_shard, write_shard
from data_builders.splits import TEST, assign_units
from data_builders.synthesis import Synthesizer, synthesize
from data_builders.written import KEPT, SYNTHESIZED, read_written, write_written
from instructrec.core.errors import UserError
from instructrec.core.files import atomic, fingerprint, locked, write_json, write_text
from instructrec.core.minhash import SLOTS
from instructrec.core.schema import INSTRUCTION, SPLITS, VALIDATION, Manifest, read_manifest

PACKAGES = (
    *("instructrec", "datatrove", "jinja2", "numpy", "orjson"),
    *("phonenumbers", "polib", "pyarrow", "pycld2", "sentencex"),
)
SHARD_BYTES, MOST_SHARD_BYTES, SHARDS = 4 << 20, 64 << 20, 256
"""A shard has 4 MiB at least and 64 MiB at most; between them a corpus is cut into about 256."""

LEAST_FOR_MAJORITY = 20
"""Examples of a family from which one answer can be too frequent."""


def plan_shards(files: Sequence[tuple[Path, str, int | None]]) -> tuple[list[list[Piece]], list[int]]:
    """Cut the sorted files into shards of about equal bytes: small files together, large ones by byte ranges.

    Files that no reader takes have no part in the sizes, from which it follows how many examples a shard is asked for.

    Args:
        files: place, name and bytes of each.

    Returns:
        The pieces of each shard, and the bytes of each shard that can be read.
    """
    lengths = [size if size and readable(path) else 0 for path, _, size in files]
    target = min(max(sum(lengths) // SHARDS, SHARD_BYTES), MOST_SHARD_BYTES)
    shards: list[list[Piece]] = []
    sizes: list[int] = []
    for (path, name, _), length in zip(files, lengths, strict=True):
        parts = -(-length // target) if length > target and splittable(path) else 1
        for part in range(parts):
            start, end = length * part // parts, length * (part + 1) // parts
            if not shards or (sizes[-1] and sizes[-1] + end - start > target):
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
    files = [mined / f"{rank:05d}.units.parquet" for rank in range(shards)]
    # What is held for every unit of the corpus at once is little else than its name and its signature.
    marks = np.empty((sum(pq.read_metadata(file).num_rows for file in files), SLOTS), np.uint32)
    names: list[str] = []
    kinds: list[str] = []
    documents = size = 0
    for file in files:
        table = pq.read_table(file)
        documents += pc.sum(table["documents"]).as_py() or 0
        size += pc.sum(table["bytes"]).as_py() or 0
        productive = table.filter(pc.greater(table["examples"], 0)).combine_chunks()
        signatures = b"".join(productive["signature"].to_pylist())
        marks[len(names) : len(names) + len(productive)] = np.frombuffer(signatures, np.uint32).reshape(-1, SLOTS)
        names += productive["unit"].to_pylist()
        kinds += map(sys.intern, productive["kind"].to_pylist())
    sides, first = assign_units(
        names, kinds, marks[: len(names)], config.seed, config.validation_documents, config.test_documents
    )
    del marks
    repeated = sum(first[place] != place for place in range(len(first)))
    held = []
    place = 0
    for rank in range(shards):
        table = pq.read_table(files[rank], columns=["examples"])
        by_unit: list[str | None] = []
        for examples in table["examples"].to_pylist():
            side = None
            if examples:
                if first[place] == place or "near_duplicate" not in config.gates:
                    side = sides[place]
                    held += [names[place]] if side in (TEST, VALIDATION) else []
                place += 1
            by_unit.append(side)
        write_json(folder / f"{rank:05d}.json", by_unit)
    write_json(folder / "limits.json", limits(mined, folder, shards, config))
    write_json(folder / "majorities.json", majorities(mined, shards))
    return {"documents": documents, "bytes": size, "near_duplicates": repeated, "held_out": sorted(held)}


def majorities(mined: Path, shards: int) -> list[tuple[str, str, float]]:
    """(family, answer, share to keep) for every answer that would be more than half of its family's examples."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    totals: Counter[str] = Counter()
    for rank in range(shards):
        mark = json.loads((mined / f"{rank:05d}.json").read_text(encoding="utf-8"))
        for family, n, answers in mark["answers"]:
            totals[family] += n
            counts[family].update(dict(answers))
    found = []
    for family, total in sorted(totals.items()):
        answer, n = max(counts[family].items(), key=lambda entry: (entry[1], entry[0]), default=("", 0))
        if total >= LEAST_FOR_MAJORITY and 2 * n > total:
            found.append((family, answer, (total - n) / n))
    return found


def build(
    config: BuildConfig,
    output: Path,
    workers: int,
    finish: Callable[[Path], None],
    engine: str = "local",
    synthesizer: Synthesizer | None = None,
) -> Manifest:
    """Build an instruction set, or continue a build that was interrupted.

    Args:
        config: what to build.
        output: the set's folder; it appears when the set is complete.
        workers: processes at most; the result does not depend on it.
        finish: called with the complete folder just before it gets its final name.
        engine: `local` or `ray`; the result does not depend on it.
        synthesizer: the model that `config.synthesize` names.

    Returns:
        The manifest. A finished set of the same corpus and config is left as it is.

    Raises:
        UserError: no corpus, no usable document, a full disk, another build at work, or `output` holds something else.
    """
    identity = synthesizer.identity if synthesizer else None
    if output.exists():
        if _is_current(output, config.corpus, _plan(config, identity)[0]):
            return read_manifest(output)
        raise UserError(
            f"{output}: holds an instruction set of another corpus or config; choose another --output or delete it"
        )
    refuse_nested(config.corpus, output)
    lock = output.with_name(f".{output.name}.lock")
    try:
        with locked(lock, wait=False):
            partial = output.with_name(f"{output.name}.partial")
            # Apart: memory that held millions of names would stay taken for as long as the build runs.
            plan, sizes = apart(_prepare, partial, config, identity)
            manifest = _build(config, plan, sizes, output, workers, finish, engine, synthesizer)
            lock.unlink()
    except BlockingIOError:
        raise UserError(f"{output}: another build is writing it; wait for it or choose another --output") from None
    return manifest


def refuse_nested(corpus: str, output: Path) -> None:
    """Raise `UserError` if a build would write into the corpus that it reads."""
    place = Path(corpus)
    if place.is_dir() and output.resolve().is_relative_to(place.resolve()):
        raise UserError(f"--output {output}: lies inside the corpus {corpus!r}; choose a folder outside of it")


def _plan(
    config: BuildConfig, synthesizer: dict[str, Any] | None
) -> tuple[dict[str, Any], list[tuple[Path, str, int | None]]]:
    """What a build is to do, in JSON types, and the files that it reads: place, name and bytes of each."""
    names, times = hashlib.sha256(), hashlib.sha256()
    files = []
    for path, name in corpus_files(config.corpus):
        size: int | None = None
        time: int | None = None
        try:
            status = os.stat(path)  # noqa: PTH116  half the cost of Path.stat, once per file
            if stat.S_ISREG(status.st_mode):
                size, time = status.st_size, status.st_mtime_ns
        except OSError:
            pass  # its reader will say what it is
        names.update(f"{name}\0{size}\n".encode("utf-8", "replace"))
        times.update(f"{time}\n".encode())
        files.append((path, name, size))
    evaluations = contamination(config.decontaminate)
    plan = {
        "config": config.portable(),
        "evaluations": evaluations.fingerprint if evaluations else None,
        "inventory": names.hexdigest(),
        "synthesizer": synthesizer,
        "times": times.hexdigest(),
        "versions": {package: version(package) for package in PACKAGES},
    }
    return json.loads(json.dumps(plan)), files


def _prepare(
    partial: Path, config: BuildConfig, synthesizer: dict[str, Any] | None
) -> tuple[dict[str, Any], list[int]]:
    """Make the folder of an unfinished build with its plan and shards, unless it is there from an earlier start.

    Returns:
        The plan, and the bytes of each shard.
    """
    plan, files = _plan(config, synthesizer)
    shards, sizes = plan_shards(files)
    plan_file = partial / "plan.json"
    if plan_file.exists() and json.loads(plan_file.read_text(encoding="utf-8")) == plan:
        return plan, sizes
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "shards").mkdir(parents=True)
    for rank, pieces in enumerate(shards):
        shard = {"pieces": pieces, "bytes": sizes[rank], "corpus": sum(sizes)}
        # Escaped: the name of a file need not be Unicode.
        write_text(partial / "shards" / f"{rank:05d}.json", json.dumps(shard))
    write_json(plan_file, plan)
    return plan, sizes


def _build(
    config: BuildConfig,
    plan: dict[str, Any],
    sizes: list[int],
    output: Path,
    workers: int,
    finish: Callable[[Path], None],
    engine: str,
    synthesizer: Synthesizer | None,
) -> Manifest:
    """Run or continue the build that was prepared; the caller holds the lock."""
    partial = output.with_name(f"{output.name}.partial")
    try:
        manifest = _run_stages(config, sizes, partial, workers, engine, synthesizer)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(f"{partial}: the disk is full; free some space and run the same command again") from None
    folder = partial / "set"
    manifest["corpus"] |= {key: plan[key] for key in ("inventory", "evaluations")}
    if not sum(manifest["splits"].values()):
        reasons = ", ".join(f"{n} {reason}" for reason, n in manifest["corpus"]["skipped"].items())
        gates = sum((Counter(family["rejected"]) for family in manifest["families"].values()), Counter[str]())
        rejected = ", ".join(f"{n} {gate}" for gate, n in sorted(gates.items()))
        shutil.rmtree(partial)
        raise UserError(
            f"corpus {config.corpus!r}: no instruction could be mined from {manifest['corpus']['documents']} documents"
            f" (skipped files: {reasons or 'none'}; rejected by gates: {rejected or 'none'}); prose needs paragraphs of"
            " 30 to 110 words in a language with templates, code needs documented functions"
        )
    write_json(folder / "manifest.json", manifest)
    write_text(folder / "README.md", apart(card, folder, manifest))
    write_text(folder / _BUILT_FROM, _built_from(config.corpus, plan))
    finish(folder)
    folder.rename(output)
    shutil.rmtree(partial)
    return manifest


def _run_stages(
    config: BuildConfig,
    sizes: list[int],
    partial: Path,
    workers: int,
    engine: str,
    synthesizer: Synthesizer | None,
) -> Manifest:
    """All stages, each skipping the shards it has done before; leaves the set without manifest in `partial/set`."""
    settle()
    shards = len(sizes)
    pieces, mined, sides, rendered, written, folder = (
        partial / name for name in ("shards", "mined", "sides", "rendered", "written", "set")
    )
    for place in (mined, sides, rendered, written, *(folder / split for split in SPLITS)):
        place.mkdir(parents=True, exist_ok=True)

    def stage(title: str, step: Callable[[int], None], marks: Path, counted: str) -> None:
        run_stage(Stage(title, step, sizes, marks, counted), partial / "logs" / title, workers, engine)

    stage("mining", lambda rank: mine_shard(pieces, config, mined, rank), mined, "documents")
    facts = apart(hold_out, mined, sides, shards, config)
    if synthesizer:
        synthesize(mined, sides, partial / "asked.jsonl", shards, config, synthesizer)
    stage("rendering", lambda rank: render_shard(mined, sides, rendered, rank, config), rendered, "rows")

    def compare(step: Callable[[int], None], parts: int, marks: Path) -> None:
        if parts == 1:
            return step(0)
        equal = Stage("comparing", step, [BYTES_OF_PART] * parts, marks, "n-grams")
        run_stage(equal, partial / "logs" / marks.name, workers, engine)

    drop_overlaps(rendered, shards, "duplicate" in config.gates, compare)
    turns = config.turns_per_document
    stage("writing", lambda rank: write_shard(rendered, folder, written, rank, turns), written, "rows")
    manifest = apart(_summarise, config, mined, rendered, written, folder, shards, facts)
    if synthesizer:
        texts = read_written(sides)
        write_written(folder, texts)
        spans, wordings = ([e.verdict for e in texts if (e.family == SYNTHESIZED) == of] for of in (True, False))
        manifest["synthesis"] = synthesizer.identity | {
            "spans": {"tried": len(spans), "kept": spans.count(KEPT)},
            "wordings": {"tried": len(wordings), "kept": wordings.count(KEPT)},
        }
    return manifest


def _summarise(
    config: BuildConfig, mined: Path, rendered: Path, written: Path, folder: Path, shards: int, facts: dict[str, Any]
) -> Manifest:
    """Add up what the shards counted, write the lists of skipped files and kept rejects, and make the manifest."""
    rows: Counter[tuple[str, str]] = Counter()
    splits: Counter[str] = Counter()
    rejected: Counter[tuple[str, str]] = Counter()
    samples: list[tuple[int, str]] = []
    skipped: list[dict[str, str]] = []
    languages: Counter[tuple[str, str]] = Counter()
    for rank in range(shards):
        mark = json.loads((mined / f"{rank:05d}.json").read_text(encoding="utf-8"))
        skipped += mark["skipped"]
        languages.update({(kind, language): n for kind, language, n in mark["languages"]})
        records = [json.loads((at / f"{rank:05d}.json").read_text(encoding="utf-8")) for at in (rendered, written)]
        for record in records:
            samples += [(key, text) for key, text in record["samples"]]
            for family, gate, n in record["rejected"]:
                rejected[family, gate] += n
        for split, family, language, n in records[-1]["counts"]:
            splits[split] += n
            rows[family, language] += n
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
                "not_applicable": sum(
                    n for (kind, code), n in languages.items() if kind == family.kind and not family.wordings(code)
                ),
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


_BUILT_FROM = ".built_from"
"""A digest in the set's folder of the corpus's place and its files' sizes and exact times; it says nothing in clear."""


def _built_from(corpus: str, plan: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([str(Path(corpus).resolve()), plan], sort_keys=True).encode()).hexdigest()


def _is_current(output: Path, corpus: str, plan: dict[str, Any]) -> bool:
    """Whether a finished set was built by this plan from this very place, and no file changed since."""
    read_manifest(output)
    mark = output / _BUILT_FROM
    return mark.exists() and mark.read_text(encoding="utf-8") == _built_from(corpus, plan)
