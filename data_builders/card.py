"""The card of an instruction set: a README.md that `datasets` reads and people read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from data_builders.written import FILE, SYNTHESIZED
from instructrec.core.licences import count_licences
from instructrec.core.schema import SPLITS, TEST_TASKS, Manifest, split_files

SAMPLES = 3
"""Rows of each family that a card shows."""
HEAD, TAIL = 400, 200
"""Characters of a longer prompt or answer that it shows."""
MOST_LICENCES = 30


def _sizes(n: int) -> str:
    """The Hub's size category of `n` rows."""
    for most, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if n < most:
            return name
    return "n>1M"


def card(folder: Path, manifest: Manifest) -> str:
    """Render the card of the set in `folder`: front matter with the five splits, counts, hold-out, samples."""
    rows = sum(manifest["splits"].values())
    languages = sorted({code for family in manifest["families"].values() for code in family["languages"]})
    front = {
        "configs": [
            {
                "config_name": "default",
                # `datasets` keys its cache by this front matter, not by the files: without the fingerprint two sets in
                # folders of one name would be taken for each other.
                "description": f"fingerprint {manifest['fingerprint']}",
                "data_files": [{"split": split, "path": f"{split}/*.parquet"} for split in SPLITS],
            }
        ],
        "language": languages,
        "size_categories": [_sizes(rows)],
        "task_categories": ["text-generation"],
        "tags": ["instructrec", "instruction-tuning", "mined"],
    }
    corpus, held = manifest["corpus"], manifest["held_out"]
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# Instructions mined from `{manifest['config']['corpus']}`",
        "",
        f"{rows} instructions, mined without labels{_help(manifest)} from {corpus['documents']} documents"
        f" ({corpus['bytes'] / 1e6:.1f} MB, licence {manifest['config']['licence']}). Every row names the bytes that it"
        " was made from in `source`. Made by [instructrec](manifest.json); the same corpus, config and seed give the"
        " same bytes.",
        "",
        "| split | rows | what it measures |",
        "| --- | ---: | --- |",
        f"| train | {manifest['splits']['train']} | |",
        f"| validation | {manifest['splits']['validation']} | unseen documents, for choices made in training |",
        f"| test_documents | {manifest['splits']['test_documents']} | unseen documents |",
        f"| test_templates | {manifest['splits']['test_templates']} | the same examples in unseen wordings |",
        f"| test_tasks | {manifest['splits']['test_tasks']} | unseen documents and unseen families: "
        f"{', '.join(held['families']) or 'none'} |",
        "",
        f"Held out: {len(held['documents'])} documents, {len(held['templates'])} wordings, "
        f"{len(held['families'])} families; {corpus['near_duplicates']} near duplicates were left out.",
        "",
        "| family | kind | group | rows | languages | rejected by gates |",
        "| --- | --- | --- | ---: | --- | --- |",
    ]
    families = sorted(manifest["families"].items(), key=lambda entry: (entry[1]["kind"], entry[0]))
    for name, family in families:
        spoken = ", ".join(f"{code} {n}" for code, n in family["languages"].items()) or "–"
        tried = family["rows"] + sum(family["rejected"].values())
        rejected = ", ".join(f"{gate} {_rate(n, tried)}" for gate, n in family["rejected"].items()) or "–"
        lines.append(f"| {name} | {family['kind']} | {family['group']} | {family['rows']} | {spoken} | {rejected} |")
    gates: Counter[str] = Counter()
    for _, family in families:
        gates.update(family["rejected"])
    tried = rows + gates.total()
    if gates:
        whole = ", ".join(f"{gate} {_rate(n, tried)}" for gate, n in gates.most_common())
        lines += ["", f"Of {tried} candidates the gates rejected: {whole}."]
    lines += ["", "| licence | rows |", "| --- | ---: |"]
    licences = count_licences(folder).most_common()
    lines += [f"| {_cell(licence)} | {n} |" for licence, n in licences[:MOST_LICENCES]]
    if others := licences[MOST_LICENCES:]:
        lines.append(f"| {len(others)} others | {sum(n for _, n in others)} |")
    if corpus["skipped"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in corpus["skipped"].items())
        lines += ["", f"What yielded no document ({reasons}) is listed in `skipped.jsonl`."]
    lines += ["", "## Samples", "", "`instructrec trace ID` shows the bytes that a row was made from.", ""]
    for name, samples in sorted(_samples(folder, manifest).items()):
        lines += [f"### {name}", ""]
        for split, row in samples:
            lines += [f"`{row['id']}` ({split})", ""]
            for message in (row["prompt"][-1], row["completion"][0]):
                lines += ["````text", _shortened(message["content"]).replace("````", "'''"), "````", ""]
    return "\n".join(lines)


def _help(manifest: Manifest) -> str:
    """What a model wrote for the set."""
    if "synthesis" not in manifest:
        return " or a language model"
    synthesis = manifest["synthesis"]
    return (
        f" and with the help of {synthesis['model']}, which wrote the instructions of {SYNTHESIZED!r} (kept"
        f" {synthesis['spans']['kept']} of {synthesis['spans']['tried']}) and wordings named `….{SYNTHESIZED}` (kept"
        f" {synthesis['wordings']['kept']} of {synthesis['wordings']['tried']}; all in `{FILE}`),"
    )


def _rate(n: int, tried: int) -> str:
    return f"{n} ({n / tried:.1%})".replace("%", " %")


def _cell(text: str) -> str:
    """A text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _shortened(text: str) -> str:
    """Both ends of a long text: a wording asks before or after the passage."""
    if len(text) <= HEAD + TAIL:
        return text
    return f"{text[:HEAD].rstrip()} … {text[-TAIL:].lstrip()}"


def _samples(folder: Path, manifest: Manifest) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """The first rows of every family as (split, row), from training if it has them; reads whole only their groups."""
    samples: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    missing = {name: min(family["rows"], SAMPLES) for name, family in manifest["families"].items()}
    for split in SPLITS:
        # A held-out family has no rows elsewhere, so that nothing is searched for them.
        here = {n for n in missing if (split == TEST_TASKS) == (n in manifest["held_out"]["families"])}
        for path in split_files(folder, split):
            if not any(missing[name] for name in here):
                break
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    chosen = []
                    columns = file.read_row_group(group, ["family", "turn"]).to_pydict()
                    for number, (name, turn) in enumerate(zip(columns["family"], columns["turn"], strict=True)):
                        if missing.get(name) and not turn:  # a later turn cannot be read without those before
                            missing[name] -= 1
                            chosen.append(number)
                    if chosen:
                        rows = file.read_row_group(group, ["id", "family", "prompt", "completion"]).take(chosen)
                        for row in rows.to_pylist():
                            samples.setdefault(row["family"], []).append((split, row))
                    if not any(missing[name] for name in here):
                        break
    return samples
