"""The card of an instruction set: a README.md that `datasets` reads and people read."""

from __future__ import annotations

from pathlib import Path

import yaml

from instructrec.core.schema import SPLITS, Manifest, read_split


def _sizes(n: int) -> str:
    """The Hub's size category of `n` rows."""
    for most, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if n < most:
            return name
    return "n>1M"


def card(folder: Path, manifest: Manifest) -> str:
    """Render the card of the set in `folder`: front matter with the five splits, counts, hold-out, three samples."""
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
        f"{rows} instructions, mined without labels or a language model from {corpus['documents']} documents"
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
        "| family | group | rows | rejected by gates |",
        "| --- | --- | ---: | --- |",
    ]
    for name, family in manifest["families"].items():
        rejected = ", ".join(f"{gate} {n}" for gate, n in family["rejected"].items()) or "–"
        lines.append(f"| {name} | {family['group']} | {family['rows']} | {rejected} |")
    if corpus["skipped"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in corpus["skipped"].items())
        lines += ["", f"Files that yielded no document ({reasons}) are listed in `skipped.jsonl`."]
    lines += ["", "## Samples", ""]
    for name, row in sorted(_samples(folder, manifest).items()):
        prompt = row["prompt"][-1]["content"].replace("````", "'''")
        lines += [f"### {name}", "", "````text", prompt, "````", "", "````text"]
        lines += [row["completion"][0]["content"].replace("````", "'''"), "````", ""]
    return "\n".join(lines)


def _samples(folder: Path, manifest: Manifest) -> dict[str, dict]:
    """The first row of every family, reading no further than the last of them."""
    missing = {name for name, family in manifest["families"].items() if family["rows"]}
    samples: dict[str, dict] = {}
    for row in (row for split in SPLITS for row in read_split(folder, split)):
        if not missing:
            break
        if row["family"] in missing:
            samples[row["family"]] = row
            missing.remove(row["family"])
    return samples
