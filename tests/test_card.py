"""The card: front matter that `datasets` reads, counts that agree with the rows, samples of all families."""

import re
import shutil
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from data_builders import card as module
from data_builders.card import card
from instructrec.core.schema import INSTRUCTION, SPLITS, read_manifest, read_split


def write(folder, split, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows, INSTRUCTION), folder / split / "00000.parquet", **options)


def test_the_card_of_a_build_counts_what_the_rows_hold(instruction_set):
    manifest = read_manifest(instruction_set)
    text = (instruction_set / "README.md").read_text(encoding="utf-8")
    assert text == card(instruction_set, manifest)
    front = yaml.safe_load(text.split("---\n")[1])
    (config,) = front["configs"]
    assert manifest["fingerprint"] in config["description"]
    assert [entry["split"] for entry in config["data_files"]] == list(SPLITS)
    rows = [row for split in SPLITS for row in read_split(instruction_set, split)]
    for name, n in Counter(row["family"] for row in rows).items():
        family = manifest["families"][name]
        assert f"| {name} | {family['kind']} | {family['group']} | {n} | en {n} |" in text
    assert f"| unknown | {len(rows)} |" in text


def test_rates_licences_and_skipped_reasons(instruction_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(instruction_set, folder)
    manifest = read_manifest(folder)
    for family in manifest["families"].values():
        family["rejected"] = {}
    manifest["families"]["title"] |= {"rows": 60, "rejected": {"leak": 30, "duplicate": 10}}
    manifest["corpus"]["skipped"] = {"binary": 2, "empty": 7}
    train = list(read_split(folder, "train"))
    entry = train[0]["source"][0]
    train[0]["source"] = [entry | {"licence": "MIT"}, entry | {"licence": "MIT"}, entry | {"licence": "A|\nB"}]
    write(folder, "train", train)
    text = card(folder, manifest)
    assert "| 60 | en" in text and "| duplicate 10 (10.0 %)" not in text
    assert "leak 30 (30.0 %), duplicate 10 (10.0 %)" in text
    assert "| MIT | 1 |" in text and "| A\\| B | 1 |" in text
    assert f"| unknown | {sum(manifest['splits'].values()) - 1} |" in text
    assert "binary 2, empty 7" in text


def test_samples_are_three_of_each_family_training_rows_first(instruction_set, tmp_path, monkeypatch):
    folder = tmp_path / "set"
    shutil.copytree(instruction_set, folder)
    manifest = read_manifest(folder)
    rows = {split: list(read_split(folder, split)) for split in SPLITS}
    long = "Where the passage begins. " + "And so on. " * 200 + "What the wording asks?"
    first = next(row for row in rows["train"] if row["family"] == "title")
    first["prompt"][-1]["content"] = long
    for split in SPLITS:
        write(folder, split, rows[split], row_group_size=10)
    seen = Counter(row["family"] for split in SPLITS for row in rows[split])
    read = []

    class Watched(pq.ParquetFile):
        def read_row_group(self, i, columns=None, **options):
            read.append(columns)
            return super().read_row_group(i, columns, **options)

    monkeypatch.setattr(module.pq, "ParquetFile", Watched)
    text = card(folder, manifest)
    for name, n in seen.items():
        part = text.split(f"\n### {name}\n")[1].split("\n### ")[0]
        splits = re.findall(r"^`[0-9a-f]{32}` \((\w+)\)$", part, re.MULTILINE)
        assert len(splits) == min(n, 3)
        held_out = name in manifest["held_out"]["families"]
        training = sum(row["family"] == name for row in rows["train"])
        assert splits.count("test_tasks" if held_out else "train") == (len(splits) if held_out else min(training, 3))
    assert "Where the passage begins." in text and "What the wording asks?" in text and long not in text
    assert max(map(len, text.split("````")[1:])) < 700
    whole = sum("prompt" in columns for columns in read)
    assert whole <= 3 * len(seen) < sum(len(rows[split]) for split in SPLITS) / 10
