"""The build: corpus → shards → mined examples (datatrove) → splits → instruction set.

Mining is a pure function of one shard and runs in any number of processes; assembling reads the shards in order. So the
output depends on the corpus, the config and the seed alone. Everything happens in `<output>.partial`, which a killed
build leaves behind and the next one continues; the finished set appears under its name by a single rename.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from loguru import logger

from data_builders.card import card
from data_builders.documents import PYTHON, Document, Unreadable, corpus_files, read
from data_builders.families import Example, Family, Template, families
from data_builders.gates import rejected_by
from data_builders.splits import TEST, Unit, assign_documents, hashed, held_out_templates, pick
from instructrec.core.errors import UserError, nearest
from instructrec.core.files import atomic, fingerprint, write_json, write_text
from instructrec.core.overlap import SLOTS, signature
from instructrec.core.schema import (
    INSTRUCTION,
    SPLITS,
    TEST_DOCUMENTS,
    TEST_TASKS,
    TEST_TEMPLATES,
    TRAIN,
    VALIDATION,
    Manifest,
    instruction_id,
    read_manifest,
)

SHARD_BYTES = 4 << 20
PACKAGES = ("instructrec", "datatrove", "jinja2", "numpy", "py3langid", "pyarrow", "sentencex")


@dataclass(frozen=True)
class BuildConfig:
    """What decides the bytes of an instruction set, together with the corpus.

    Attributes:
        corpus: a folder, a file, or `python` for what every Python installation carries.
        licence: SPDX identifier written into every row's source.
        families: names to mine; empty means all.
        held_out_groups: groups of families that only `test_tasks` holds.
        held_out_templates, test_documents, validation_documents: shares in [0, 1).
        per_document: examples of one family from one document at most.
        rows_per_family: training rows of one family at most.
        heldout_rows_per_family: rows of one family in each other split at most.
        seed: of every choice.
    """

    corpus: str = PYTHON
    licence: str = ""
    families: tuple[str, ...] = ()
    held_out_groups: tuple[str, ...] = ("coherence",)
    held_out_templates: float = 0.2
    test_documents: float = 0.15
    validation_documents: float = 0.05
    per_document: int = 6
    rows_per_family: int = 600
    heldout_rows_per_family: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        known = families()
        groups = {family.group for family in known.values()}
        for name in self.families:
            if name not in known:
                raise UserError(f"families: {name!r} is not a family.{nearest(name, known)}")
        for group in self.held_out_groups:
            if group not in groups:
                raise UserError(f"held_out_groups: {group!r} is not a group.{nearest(group, groups)}")
        for key in ("held_out_templates", "test_documents", "validation_documents"):
            if not 0 <= getattr(self, key) < 1:
                raise UserError(f"{key}: must be a share from 0 to under 1, not {getattr(self, key)}")
        for key in ("per_document", "rows_per_family", "heldout_rows_per_family"):
            if getattr(self, key) < 1:
                raise UserError(f"{key}: must be 1 or more, not {getattr(self, key)}")

    @property
    def mined_families(self) -> list[Family]:
        return [family for name, family in families().items() if not self.families or name in self.families]

    @property
    def document_licence(self) -> str:
        return self.licence or ("PSF-2.0" if self.corpus == PYTHON else "unknown")

    def portable(self) -> dict[str, Any]:
        """The config as the manifest shows it: the corpus by name, without its place on this machine."""
        name = self.corpus if self.corpus == PYTHON else Path(self.corpus).resolve().name
        return asdict(self) | {"corpus": name, "licence": self.document_licence}


MINED = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("family", pa.string()),
        pa.field("language", pa.string()),
        pa.field("example", pa.string()),
        pa.field("source", pa.string()),
    ]
)
"""One mined example between the two halves of the build; `example` and `source` are JSON."""

UNITS = pa.schema(
    [
        pa.field("unit", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("signature", pa.list_(pa.uint64(), SLOTS)),
        pa.field("documents", pa.int64()),
        pa.field("bytes", pa.int64()),
    ]
)
"""One unit of a shard: what the hold-out needs to know about it."""


def plan_shards(files: list[tuple[Path, str]], shard_bytes: int = SHARD_BYTES) -> list[list[tuple[Path, str]]]:
    """Cut the sorted files into runs of about `shard_bytes`."""
    shards: list[list[tuple[Path, str]]] = []
    size = shard_bytes
    for file in files:
        try:
            length = file[0].stat().st_size
        except OSError:
            length = 0
        if size + length > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(file)
        size += length
    return shards


def mine(document: Document, config: BuildConfig) -> Iterator[tuple[Family, Example]]:
    """Every family's examples from one document, `per_document` each at most."""
    for family in config.mined_families:
        if family.kind == document.kind and document.language in family.templates:
            rng = random.Random(hashed(config.seed, family.name, document.path, document.start, document.sha256))
            for example in islice(family.mine(document, rng), config.per_document):
                yield family, example


def mine_shard(files: list[tuple[Path, str]], config: BuildConfig, folder: Path, rank: int) -> None:
    """Read and mine one shard's files into `folder`: examples, units and the files that yielded no document."""
    examples: list[dict[str, Any]] = []
    units: dict[str, dict[str, Any]] = {}
    texts: dict[str, list[str]] = defaultdict(list)
    skipped: list[dict[str, str]] = []
    for path, name in files:
        try:
            for document in read(path, name, config.document_licence):
                unit = units.setdefault(
                    document.unit, {"unit": document.unit, "kind": document.kind, "documents": 0, "bytes": 0}
                )
                unit["documents"] += 1
                unit["bytes"] += document.end - document.start
                unit["kind"] = document.kind
                texts[document.unit].append(document.content)
                for family, example in mine(document, config):
                    start, end = document.span(example.start, example.end)
                    source = {
                        "path": document.path,
                        "sha256": document.sha256,
                        "start": start,
                        "end": end,
                        "extractor": document.extractor,
                        "licence": document.licence,
                    }
                    examples.append(
                        {
                            "unit": document.unit,
                            "family": family.name,
                            "language": document.language,
                            "example": json.dumps(asdict(example), ensure_ascii=False),
                            "source": json.dumps([source], ensure_ascii=False),
                        }
                    )
        except Unreadable as reason:
            skipped.append({"path": name, "reason": str(reason)})
    for name, unit in units.items():
        # The longest document of a unit contains the others (docstrings stand in their file).
        unit["signature"] = signature(max(texts[name], key=len)).tolist()
    write_json(folder / f"{rank:05d}.skipped.json", skipped)
    for name, rows, schema in (("units", list(units.values()), UNITS), ("examples", examples, MINED)):
        with atomic(folder / f"{rank:05d}.{name}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(rows, schema), temporary, compression="zstd")


class _QuietExecutor(LocalPipelineExecutor):
    """datatrove's local executor without its log on the terminal; a failing shard still raises."""

    def _launch_run_for_rank(self, *args: Any, **kwargs: Any) -> Any:
        logger.disable("datatrove")
        return super()._launch_run_for_rank(*args, **kwargs)

    def run(self) -> Any:
        logger.disable("datatrove")
        return super().run()


def mine_all(shards: list[list[tuple[Path, str]]], config: BuildConfig, folder: Path, workers: int) -> None:
    """Mine every shard that is not mined yet, in `workers` processes, with a progress bar on a terminal."""

    def step(data: Any, rank: int = 0, world_size: int = 1) -> None:
        mine_shard(shards[rank], config, folder, rank)

    executor = _QuietExecutor(
        [step], tasks=len(shards), workers=min(workers, len(shards)), logging_dir=str(folder / "logs")
    )
    sizes = [sum(path.stat().st_size for path, _ in shard if path.exists()) for shard in shards]
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(sizes, folder, done), daemon=True)
    watcher.start()
    try:
        executor.run()
    finally:
        done.set()
        watcher.join()


def _watch(sizes: list[int], folder: Path, done: threading.Event) -> None:
    """Show how many bytes are mined, how fast, and how long it will take, until `done`."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("mining"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("mining", total=sum(sizes))
        finished = False
        while not finished:
            finished = done.wait(0.2)
            mined = (size for rank, size in enumerate(sizes) if (folder / f"{rank:05d}.examples.parquet").exists())
            progress.update(task, completed=sum(mined))


class _Split:
    """Writes one split's Parquet as rows arrive."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.writer = pq.ParquetWriter(folder / "00000.parquet", INSTRUCTION, compression="zstd")
        self.pending: list[dict[str, Any]] = []
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        self.pending.append(row)
        self.rows += 1
        if len(self.pending) >= 1024:
            self.flush()

    def flush(self) -> None:
        if self.pending:
            self.writer.write_table(pa.Table.from_pylist(self.pending, INSTRUCTION))
            self.pending = []

    def close(self) -> None:
        self.flush()
        self.writer.close()


def _read_mined(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    for rank in range(count):
        for batch in pq.ParquetFile(folder / f"{rank:05d}.examples.parquet").iter_batches(1024):
            yield from batch.to_pylist()


class _Assembler:
    """Turns mined examples into rows: chooses split and wording, renders, gates, caps and counts."""

    def __init__(self, config: BuildConfig, sides: dict[str, str], found: Counter[tuple[str, str]]) -> None:
        self.config = config
        self.sides = sides
        self.found = found
        self.families = {family.name: family for family in config.mined_families}
        self.rejected: dict[str, Counter[str]] = defaultdict(Counter)
        self.rows: dict[str, Counter[str]] = defaultdict(Counter)
        self.prompts: set[int] = set()
        self.held = {
            language: set().union(
                *(
                    held_out_templates(family, language, config.seed, config.held_out_templates)
                    for family in self.families.values()
                    if family.group not in config.held_out_groups
                )
            )
            for language in sorted({code for family in self.families.values() for code in family.templates})
        }

    def wordings(self, family: Family, language: str, example: Example, unseen: bool) -> list[Template]:
        """The templates that fit the example, from the held-out pool or from the other."""
        return [
            template
            for template in family.templates[language]
            if (template.name in self.held[language]) == unseen and not (template.letter and example.options is None)
        ]

    def targets(self, family: Family, side: str) -> list[tuple[str, bool]]:
        """(split, whether with an unseen wording) for an example of this family from this side of the documents."""
        if family.group in self.config.held_out_groups:
            return [(TEST_TASKS, False)] if side == TEST else []
        # A held-out document's example is asked in a seen and in an unseen wording, so that the two splits are paired.
        return [(TEST_DOCUMENTS, False), (TEST_TEMPLATES, True)] if side == TEST else [(side, False)]

    def within_cap(self, family: str, side: str, key: str) -> bool:
        """Whether a hash keeps the example, so that the expected number kept is the cap."""
        cap = self.config.rows_per_family if side == TRAIN else self.config.heldout_rows_per_family
        found = self.found[family, side]
        return found <= cap or hashed(self.config.seed, "cap", key) < cap / found * 2**64

    def render(self, mined: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(split, row) for every row that one mined example becomes."""
        family, language = self.families[mined["family"]], mined["language"]
        side = self.sides[mined["unit"]]
        key = f"{family.name}\0{mined['source']}\0{mined['example']}"
        if not self.within_cap(family.name, side, key):
            return
        example = Example(**json.loads(mined["example"]))
        for split, unseen in self.targets(family, side):
            wordings = self.wordings(family, language, example, unseen)
            if not wordings:
                continue
            template = pick(wordings, self.config.seed, "wording", split, key)
            prompt, completion, choices = template.render(example)
            reason = rejected_by(family, example, prompt)
            if reason is None and (digest := hashed(prompt)) in self.prompts:
                reason = "duplicate"
            if reason is not None:
                self.rejected[family.name][reason] += 1
                continue
            self.prompts.add(digest)
            self.rows[family.name][language] += 1
            source = json.loads(mined["source"])
            messages = [{"role": "user", "content": prompt}]
            yield (
                split,
                {
                    "id": instruction_id(source, family.name, template.name, messages, completion),
                    "prompt": messages,
                    "completion": [{"role": "assistant", "content": completion}],
                    "conversation": None,
                    "turn": None,
                    "family": family.name,
                    "group": family.group,
                    "template": template.name,
                    "language": language,
                    "kind": family.kind,
                    "targets": [completion],
                    "choices": choices,
                    "checks": json.dumps(example.checks) if example.checks else None,
                    "source": source,
                },
            )


def assemble(mined: Path, count: int, config: BuildConfig, folder: Path) -> Manifest:
    """Write the instruction set of `count` mined shards into `folder` and return its manifest."""
    parts = [pq.read_table(mined / f"{rank:05d}.units.parquet") for rank in range(count)]
    units = pa.concat_tables(parts).to_pylist()
    found: Counter[tuple[str, str]] = Counter()
    per_unit: Counter[tuple[str, str]] = Counter()
    for row in _read_mined(mined, count):
        per_unit[row["unit"], row["family"]] += 1
    productive = {unit for unit, _ in per_unit}
    sides, duplicates = assign_documents(
        [
            Unit(row["unit"], row["kind"], np.array(row["signature"], np.uint64))
            for row in units
            if row["unit"] in productive
        ],
        config.seed,
        config.validation_documents,
        config.test_documents,
    )
    for (unit, family), n in per_unit.items():
        found[family, sides[unit]] += n
    assembler = _Assembler(config, sides, found)
    splits = {split: _Split(folder / split) for split in SPLITS}
    for row in _read_mined(mined, count):
        for split, rendered in assembler.render(row):
            splits[split].add(rendered)
    for writer in splits.values():
        writer.close()

    skipped = [entry for rank in range(count) for entry in json.loads((mined / f"{rank:05d}.skipped.json").read_text())]
    write_text(folder / "skipped.jsonl", "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in skipped))
    held_groups = {family.name for family in config.mined_families if family.group in config.held_out_groups}
    return Manifest(
        corpus={
            "documents": sum(row["documents"] for row in units),
            "bytes": sum(row["bytes"] for row in units),
            "skipped": dict(sorted(Counter(entry["reason"] for entry in skipped).items())),
            "near_duplicates": sorted(duplicates),
        },
        splits={name: writer.rows for name, writer in splits.items()},
        families={
            family.name: {
                "kind": family.kind,
                "group": family.group,
                "rows": assembler.rows[family.name].total(),
                "languages": dict(sorted(assembler.rows[family.name].items())),
                "rejected": dict(sorted(assembler.rejected[family.name].items())),
            }
            for family in config.mined_families
        },
        held_out={
            "families": sorted(held_groups),
            "templates": sorted(set().union(*assembler.held.values())),
            "documents": sorted(unit for unit, side in sides.items() if side in (TEST, VALIDATION)),
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


def _is_current(output: Path, plan: dict[str, Any]) -> bool:
    """Whether a finished set was built by this plan: equal config, versions and file sizes, no file changed since."""
    manifest = read_manifest(output)
    finished = (output / "manifest.json").stat().st_mtime_ns
    return (
        json.loads(json.dumps(plan["config"])) == manifest["config"]
        and plan["versions"] == manifest["versions"]
        and _digest(plan["files"]) == manifest["corpus"]["inventory"]
        and all(mtime is None or mtime <= finished for _, _, mtime in plan["files"])
    )


def _digest(inventory: list[list[Any]]) -> str:
    return hashlib.sha256(json.dumps([entry[:2] for entry in inventory]).encode("utf-8", "replace")).hexdigest()


def build(config: BuildConfig, output: Path, workers: int, finish: Callable[[Path], None]) -> Manifest:
    """Build an instruction set, or continue a build that was interrupted.

    Args:
        config: what to build.
        output: the set's folder; it appears when the set is complete.
        workers: processes that mine; the result does not depend on it.
        finish: called with the complete folder just before it gets its final name.

    Returns:
        The manifest. A finished set of the same corpus and config is left as it is.

    Raises:
        UserError: no corpus, no usable document, or `output` holds something else.
    """
    files = corpus_files(config.corpus)
    plan = {
        "config": config.portable(),
        "files": _inventory(files),
        "versions": {package: version(package) for package in PACKAGES},
    }
    plan = json.loads(json.dumps(plan))
    if output.exists():
        if _is_current(output, plan):
            return read_manifest(output)
        raise UserError(
            f"{output}: holds an instruction set of another corpus or config; choose another --output or delete it"
        )
    shards = plan_shards(files)
    partial = output.with_name(f"{output.name}.partial")
    plan_file = partial / "plan.json"
    if not plan_file.exists() or json.loads(plan_file.read_text(encoding="utf-8")) != plan:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_json(plan_file, plan)
    mined, folder = partial / "mined", partial / "set"
    mined.mkdir(exist_ok=True)
    mine_all(shards, config, mined, workers)
    shutil.rmtree(folder, ignore_errors=True)
    manifest = assemble(mined, len(shards), config, folder)
    manifest["corpus"]["inventory"] = _digest(plan["files"])
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
    finish(folder)
    folder.rename(output)
    shutil.rmtree(partial)
    return manifest
