"""Third stage: one shard's mined examples → rows in their splits: caps, wordings, masking, gates.

A pure function of the shard's examples and of the plan that the hold-out made, so that shards can run anywhere.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from data_builders.config import BuildConfig
from data_builders.conversations import RENDERED, shown, topics, with_conversations
from data_builders.families import Example, Family, Template
from data_builders.gates import rejected_by
from data_builders.mining import key_of, unpack
from data_builders.overlaps import NgramWriter
from data_builders.rejects import Rejects
from data_builders.splits import TEST, hashed, held_out_templates, pick
from data_builders.written import KEPT, SYNTHESIZED, UNWRITTEN, Texts, read_written
from instructrec.core.files import atomic, write_json
from instructrec.core.parquet import BATCH, batches
from instructrec.core.passages import passage_of
from instructrec.core.privacy import mask
from instructrec.core.schema import (
    INSTRUCTION,
    SPLITS,
    TEST_DOCUMENTS,
    TEST_TASKS,
    TEST_TEMPLATES,
    TRAIN,
    instruction_id,
)

FOLLOW_UP = "follow-up"
"""What a follow-up is picked by, besides the key; other wordings are picked by their split."""


class Rendered(NamedTuple):
    """A row of `split`, its `values` in the order of `INSTRUCTION`, and what a conversation must know of it.

    `text`, `reference`, `follow_up`, `secrets` and `topics` are as in `conversations.RENDERED`.
    """

    split: str
    values: tuple[Any, ...]
    text: str | None
    reference: str | None
    follow_up: dict[str, Any] | None
    secrets: list[str]
    topics: list[str]


class Renderer:
    """Turns mined examples into rows.

    Args:
        config: the build's settings.
        limits: (family, side) → the largest key that is kept, where not all are.
        contamination: `reason(prompt, completion)`, or null.
        majorities: family → its most frequent answer and the share of those examples that is kept.
        texts: what a model wrote for the set.
    """

    def __init__(
        self,
        config: BuildConfig,
        limits: dict[tuple[str, str], int],
        contamination: Any = None,
        majorities: dict[str, tuple[str, float]] | None = None,
        texts: Texts | None = None,
    ) -> None:
        self.config, self.limits, self.contamination = config, limits, contamination
        self.majorities, self.texts = majorities or {}, texts or Texts()
        self.enabled = frozenset(config.gates)
        self.families = {family.name: family for family in config.mined_families}
        self.held = held_out(config)
        self.rejects = Rejects()
        self._pools: dict[tuple[str, str, bool, bool], list[Template]] = {}

    def wordings(self, family: Family, language: str, unseen: bool, choice: bool) -> list[Template]:
        """The wordings that fit, from the held-out pool or from the other."""
        key = (family.name, language, unseen, choice)
        if key not in self._pools:
            written = self.texts.wordings.get((family.name, language), [])
            self._pools[key] = [
                template
                for template in (*family.wordings(language), *written)
                if (template.name in self.held) == unseen and (choice or not template.letter)
            ]
        return self._pools[key]

    def follow_up(
        self, family: Family, language: str, example: Example, text: str | None, key: int
    ) -> dict[str, Any] | None:
        """The example as a follow-up about a text that is shown already; null where it has none that the gates pass."""
        choice = example.options is not None
        worded = [template for template in family.follow_ups.get(language, []) if choice or not template.letter]
        if text is None or not worded:
            return None
        template = pick(worded, key, FOLLOW_UP)
        question, completion, choices = template.render(example)
        if rejected_by(family, example, f"{text}\n\n{question}", language, self.enabled):
            return None
        return {"template": template.name, "question": question, "completion": completion, "choices": choices}

    def targets(self, family: Family, side: str) -> list[tuple[str, bool]]:
        """(split, whether in an unseen wording) for an example of this family from this side of the documents."""
        if family.group in self.config.held_out_groups:
            return [(TEST_TASKS, False)] if side == TEST else []
        # A held-out document's example is asked in a seen and in an unseen wording, so that the two splits are paired.
        return [(TEST_DOCUMENTS, False), (TEST_TEMPLATES, True)] if side == TEST else [(side, False)]

    def reject(self, family: str, gate: str, key: int, prompt: str, example: Example, source: bytes) -> None:
        """Count a rejected example, and perhaps keep it: without what the privacy gate has not seen yet."""
        answer = mask(example.answer)[0] if "privacy" in self.enabled else example.answer
        self.rejects.add(family, gate, key, prompt, answer, orjson.loads(source))

    def keeps(self, family_name: str, side: str | None, key: int) -> bool:
        """Whether the balance keeps an example; near duplicates are kept to be counted."""
        if side is None:
            return True
        asked = family_name != SYNTHESIZED or key in self.texts.instructions
        return asked and key <= self.limits.get((family_name, side), 2**64)

    def rows(
        self, family_name: str, language: str, packed: bytes, source: bytes, side: str | None
    ) -> Iterator[Rendered]:
        """Every row that one mined example becomes."""
        family = self.families[family_name]
        key = key_of(self.config.seed, family_name, source, packed)
        if side is None:
            self.reject(family_name, "near_duplicate", key, "", unpack(packed), source)
            return
        example = unpack(packed)
        if family_name == SYNTHESIZED:
            instruction, verdict = self.texts.instructions.get(key, ("", UNWRITTEN))
            if verdict != KEPT:
                self.reject(family_name, verdict, key, instruction, example, source)
                return
            example = replace(example, fields={"instruction": instruction})
        answer, share = self.majorities.get(family_name, (None, 1.0))
        if "majority" in self.enabled and example.answer == answer and hashed("majority", key) >= share * 2**64:
            self.reject(family_name, "majority", key, "", example, source)
            return
        if "privacy" in self.enabled:
            masked, found = mask_example(example)
            if found and (self.config.personal_data == "drop" or masked is None):
                self.reject(family_name, "privacy", key, "", masked or replace(example, answer="<dropped>"), source)
                return
            example = masked or example
        for split, unseen in self.targets(family, side):
            wordings = self.wordings(family, language, unseen, example.options is not None)
            if not wordings:
                continue
            template = pick(wordings, key, split)
            prompt, completion, choices = template.render(example)
            talks = self.config.turns_per_document > 1 and split == TRAIN
            text, reference = shown(example, language, prompt) if talks else (None, None)
            follow_up = self.follow_up(family, language, example, text, key)
            if reference is None and follow_up is None:
                text = None
            gate = rejected_by(family, example, prompt, language, self.enabled)
            said = [(prompt, completion)]
            if follow_up:
                said.append((follow_up["question"], follow_up["completion"]))
            if gate is None and self.contamination is not None and any(self.contamination.reason(*one) for one in said):
                gate = "contamination"
            if gate is not None:
                self.reject(family_name, gate, key, prompt, example, source)
                continue
            messages = [{"role": "user", "content": prompt}]
            spans = orjson.loads(source)
            yield Rendered(
                split,
                (
                    instruction_id(spans, family_name, template.name, messages, completion),
                    messages,
                    [{"role": "assistant", "content": completion}],
                    None,
                    None,
                    family_name,
                    family.group,
                    template.name,
                    language,
                    family.kind,
                    [completion],
                    choices,
                    json.dumps(example.checks) if example.checks else None,
                    spans,
                ),
                text,
                reference,
                follow_up,
                (example.options or [example.answer]) if talks else [],
                topics(example, text) if talks else [],
            )


def held_out(config: BuildConfig) -> set[str]:
    """The names of all held-out wordings of the families that are trained on."""
    return {
        name
        for family in config.mined_families
        if family.group not in config.held_out_groups
        for language in family.templates
        for name in held_out_templates(family, language, config.seed, config.held_out_templates)
    }


def mask_example(example: Example) -> tuple[Example | None, int]:
    """The example with secrets and personal data masked, and how many were found.

    Null where masking would make two options alike, so that the question has no single answer.
    """
    count = 0

    def clean(text: str) -> str:
        nonlocal count
        masked, findings = mask(text)
        count += len(findings)
        return masked

    fields = {name: clean(value) for name, value in example.fields.items()}
    answer = clean(example.answer)
    options = [clean(option) for option in example.options] if example.options is not None else None
    if not count:
        return example, 0
    if options is not None and len({option.casefold() for option in options}) < len(options):
        return None, count
    return replace(example, fields=fields, answer=answer, options=options), count


@cache
def contamination(paths: tuple[str, ...]) -> Any:
    """The index of the evaluation files, read once per process; null without any."""
    if not paths:
        return None
    from data_builders.contamination import Contamination

    return Contamination.load(paths)


def render_shard(mined: Path, plan: Path, folder: Path, rank: int, config: BuildConfig) -> None:
    """Render one mined shard: `RANK.rows.parquet`, what `overlaps` compares of it, and last `RANK.json`.

    `plan` holds `limits.json`, [family, side, largest key kept], `majorities.json`, [family, answer, share kept], and
    `RANK.json`: the side of each unit in order, null for a near duplicate. What a model wrote is there too.
    """
    limits = {(family, side): key for family, side, key in json.loads((plan / "limits.json").read_text())}
    majorities = {
        family: (answer, share) for family, answer, share in json.loads((plan / "majorities.json").read_text())
    }
    texts = Texts(read_written(plan))
    renderer = Renderer(config, limits, contamination(config.decontaminate), majorities, texts)
    sides = json.loads((plan / f"{rank:05d}.json").read_text())
    prompts: list[int] = []
    ngrams = NgramWriter(folder, rank)
    with (
        atomic(folder / f"{rank:05d}.rows.parquet") as temporary,
        pq.ParquetWriter(temporary, RENDERED, compression="zstd", compression_level=1) as writer,
    ):
        buffer: list[tuple[Any, ...]] = []

        def flush() -> None:
            if buffer:
                columns = zip(*buffer, strict=True)
                arrays = [pa.array(list(c), field.type) for c, field in zip(columns, RENDERED, strict=True)]
                writer.write_batch(pa.record_batch(arrays, schema=RENDERED))
                ngrams.add([passage_of({"prompt": prompt}) for _, prompt, *_ in buffer])
                buffer.clear()

        for batch in batches(mined / f"{rank:05d}.examples.parquet"):
            entries = zip(*(batch[name].to_pylist() for name in ("family", "unit", "key")), strict=True)
            kept = [i for i, (name, unit, key) in enumerate(entries) if renderer.keeps(name, sides[unit], key)]
            chosen = batch.take(pa.array(kept, pa.int64())).drop_columns(["key", "words"])
            for unit, *example in zip(*(c.to_pylist() for c in chosen.columns), strict=True):
                family, language, packed, source = example
                for split, values, *about in renderer.rows(family, language, packed, source, sides[unit]):
                    prompts.append(hashed(values[1][0]["content"]))
                    buffer.append((*values, split, unit, *about))
                if len(buffer) >= BATCH:
                    flush()
        flush()
    ngrams.close()
    with atomic(folder / f"{rank:05d}.prompts.npy") as temporary, temporary.open("wb") as file:
        np.save(file, np.array(prompts, np.uint64))
    write_json(folder / f"{rank:05d}.json", {"rows": len(prompts)} | renderer.rejects.record())


def _not_dropped(rendered: Path, rank: int, rejects: Rejects) -> Iterator[pa.Table]:
    """One shard's rows in batches, without the dropped ones, which `rejects` gets."""
    dropped = dict(json.loads((rendered / f"{rank:05d}.dropped.json").read_text()))
    number = 0
    for batch in batches(rendered / f"{rank:05d}.rows.parquet"):
        table = pa.Table.from_batches([batch])
        gates = pa.array([dropped.get(i) for i in range(number, number + len(table))], pa.string())
        number += len(table)
        for row, gate in zip(table.filter(gates.is_valid()).to_pylist(), gates.drop_null().to_pylist(), strict=True):
            prompt, answer = row["prompt"][-1]["content"], row["completion"][0]["content"]
            rejects.add(row["family"], gate, int(row["id"][:16], 16), prompt, answer, row["source"])
        yield table.filter(gates.is_null())


def write_shard(rendered: Path, folder: Path, marks: Path, rank: int, turns: int) -> None:
    """Write one shard's rows but the dropped ones: `SPLIT/RANK.parquet` in `folder`, last `RANK.json` in `marks`.

    Training rows become conversations of up to `turns` turns, if those are more than one.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    rejects = Rejects()
    writers: dict[str, pq.ParquetWriter] = {}
    tables = _not_dropped(rendered, rank, rejects)
    for table in with_conversations(tables, turns, BATCH) if turns > 1 else tables:
        splits = table["split"].to_pylist()
        counts.update(zip(splits, table["family"].to_pylist(), table["language"].to_pylist(), strict=True))
        rows = table.select(INSTRUCTION.names).cast(INSTRUCTION)
        for split in SPLITS:
            chosen = rows.filter(pa.array([name == split for name in splits], pa.bool_()))
            if len(chosen):
                if split not in writers:
                    path = folder / split / f"{rank:05d}.parquet"
                    writers[split] = pq.ParquetWriter(path, INSTRUCTION, compression="zstd")
                writers[split].write_table(chosen)
    for writer in writers.values():
        writer.close()
    write_json(
        marks / f"{rank:05d}.json",
        {"rows": counts.total(), "counts": [[*key, n] for key, n in sorted(counts.items())]} | rejects.record(),
    )
