"""The builder through its command: the contract, the hold-out, determinism, and what bad input does."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import assert_one_line_error, cli, write_corpus

from instructrec.core.errors import UserError
from instructrec.core.files import fingerprint
from instructrec.core.schema import HELD_OUT, SPLITS, read_manifest, read_split
from instructrec.data import check_hold_out, load_set


def rows(folder: Path, *splits: str) -> list[dict]:
    return [row for split in splits or SPLITS for row in read_split(folder, split)]


def content(folder: Path) -> dict[str, bytes]:
    """What must be the same: every Parquet file and the manifest."""
    files = [*folder.rglob("*.parquet"), folder / "manifest.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_set_fulfils_the_contract(instruction_set):
    manifest = read_manifest(instruction_set)
    assert {split: len(rows(instruction_set, split)) for split in SPLITS} == manifest["splits"]
    assert all(manifest["splits"].values())
    assert manifest["fingerprint"] == fingerprint(instruction_set, "*.parquet")
    ids = [row["id"] for row in rows(instruction_set)]
    assert len(set(ids)) == len(ids)
    assert sum(family["rows"] for family in manifest["families"].values()) == len(ids)
    assert len([family for family in manifest["families"].values() if family["rows"]]) >= 8


def test_datasets_loads_exactly_five_splits_of_the_right_set(instruction_set, corpus, tmp_path):
    """`datasets` takes two local folders of one name for each other unless their cards differ."""
    import datasets

    other = tmp_path / instruction_set.name
    options = ("--rows-per-family", "5", "--heldout-rows-per-family", "5")
    assert cli("build", "--corpus", str(corpus), "--output", str(other), *options).returncode == 0
    for folder in (instruction_set, other):
        data = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
        assert {split: len(rows) for split, rows in data.items()} == read_manifest(folder)["splits"]
        assert list(data) == list(SPLITS)
        assert data["train"]["id"] == [row["id"] for row in read_split(folder, "train")]


def test_training_refuses_files_that_are_not_those_of_the_build(instruction_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(instruction_set, folder)
    shutil.copy(folder / "validation" / "00000.parquet", folder / "train" / "00000.parquet")
    with pytest.raises(UserError, match="changed since it was built"):
        load_set(str(folder))


def test_spans_lead_back_to_the_bytes(instruction_set, corpus):
    import hashlib

    for row in rows(instruction_set):
        for source in row["source"]:
            raw = (corpus / source["path"]).read_bytes()
            assert hashlib.sha256(raw).hexdigest() == source["sha256"]
            span = raw[source["start"] : source["end"]].decode()
            if row["family"] == "title":
                assert span.startswith(row["completion"][0]["content"])
            if row["family"] == "function_to_docstring":
                assert span.lstrip().startswith("def ")


def test_documents_templates_and_tasks_are_held_out(instruction_set):
    manifest = read_manifest(instruction_set)
    held = manifest["held_out"]
    train, tests = rows(instruction_set, "train"), rows(instruction_set, *HELD_OUT)
    assert not {s["path"] for r in train for s in r["source"]} & {s["path"] for r in tests for s in r["source"]}
    assert not {r["template"] for r in train} & set(held["templates"])
    assert {r["template"] for r in rows(instruction_set, "test_templates")} <= set(held["templates"])
    assert not {r["template"] for r in rows(instruction_set, "test_documents")} & set(held["templates"])
    assert {r["family"] for r in rows(instruction_set, "test_tasks")} <= set(held["families"])
    groups = {name: family["group"] for name, family in manifest["families"].items()}
    assert not {groups[r["family"]] for r in train} & {groups[name] for name in held["families"]}
    check_hold_out(instruction_set)


@pytest.mark.parametrize("what", ["document", "prompt", "template"])
def test_training_refuses_a_set_that_breaks_the_hold_out(instruction_set, tmp_path, what):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from instructrec.core.schema import INSTRUCTION

    folder = tmp_path / "set"
    shutil.copytree(instruction_set, folder)
    train, held = rows(folder, "train"), rows(folder, "test_templates")[0]
    if what == "document":
        train[3]["source"] = held["source"]
    elif what == "prompt":
        train[3]["prompt"] = held["prompt"]
    else:
        train[3]["template"] = held["template"]
    pq.write_table(pa.Table.from_pylist(train, INSTRUCTION), folder / "train" / "00000.parquet")
    with pytest.raises(UserError, match=f"training row {train[3]['id']} overlaps with"):
        check_hold_out(folder)


def test_near_duplicate_documents_stay_on_one_side(tmp_path):
    folder = write_corpus(tmp_path / "docs")
    for number, path in enumerate(sorted(folder.glob("*.rst"))[:12]):
        copy = path.read_text(encoding="utf-8") + f"\nOne more closing remark, number {number}.\n"
        (folder / f"z-copy-of-{path.name}").write_text(copy, encoding="utf-8")
    assert cli("build", "--corpus", str(folder), "--output", str(tmp_path / "set")).returncode == 0
    sides: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in rows(tmp_path / "set", split):
            name = row["source"][0]["path"].removeprefix("z-copy-of-")
            sides.setdefault(name, set()).add("test" if split in HELD_OUT else split)
    assert all(len(found) == 1 for found in sides.values()), sides
    # Some short topics are alike in more than the remark, so that a cluster can hold more than a pair.
    assert len(read_manifest(tmp_path / "set")["corpus"]["near_duplicates"]) >= 8


def test_workers_hash_seed_and_place_do_not_matter(corpus, instruction_set, tmp_path):
    shutil.copytree(corpus, tmp_path / corpus.name)
    done = cli(
        *("build", "--corpus", str(tmp_path / corpus.name), "--output", str(tmp_path / "other"), "--workers", "2"),
        PYTHONHASHSEED="7",
    )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "other") == content(instruction_set)


def test_another_seed_gives_another_set(corpus, instruction_set, tmp_path):
    assert cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "s"), "--seed", "1").returncode == 0
    assert read_manifest(tmp_path / "s")["fingerprint"] != read_manifest(instruction_set)["fingerprint"]


def test_a_killed_build_continues_to_the_same_bytes(corpus, instruction_set, tmp_path):
    output = tmp_path / "set"
    command = [sys.executable, "-m", "instructrec", "build", "--corpus", str(corpus), "--output", str(output)]
    rng = random.Random(5)
    for _ in range(4):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(rng.uniform(0.3, 2.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if output.exists():
            assert content(output) == content(instruction_set)  # never half a set under the final name
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert content(output) == content(instruction_set)
    assert not output.with_name("set.partial").exists()


def test_an_existing_set_is_kept_if_current_and_refused_if_not(tmp_path):
    folder = write_corpus(tmp_path / "docs")
    build = ("build", "--corpus", str(folder), "--output", str(tmp_path / "set"))
    assert cli(*build).returncode == 0
    before = (tmp_path / "set" / "lineage.json").read_text()
    assert cli(*build).returncode == 0
    assert (tmp_path / "set" / "lineage.json").read_text() == before
    assert_one_line_error(cli(*build, "--seed", "3"), "another corpus or config", "delete it")
    (folder / "new.md").write_text("# New\n\nA page that was not there.\n")
    assert_one_line_error(cli(*build), "another corpus or config")


def test_unreadable_files_are_counted_listed_and_stop_nothing(tmp_path):
    folder = write_corpus(tmp_path / "docs")
    (folder / "noise.txt").write_bytes(b"\x00\x01\x02")
    (folder / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 40)
    (folder / "empty.md").write_text(" \n")
    (folder / "broken.py").write_text("def (:\n")
    (folder / "deep.py").write_text("(" * 5000)
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "line\nbreak.txt").write_bytes(b"\xff")
    done = cli("build", "--corpus", str(folder), "--output", str(tmp_path / "set"))
    assert done.returncode == 0, done.stderr
    skipped = read_manifest(tmp_path / "set")["corpus"]["skipped"]
    assert skipped == {
        "binary": 1,
        "empty": 1,
        "invalid_python": 2,
        "invalid_utf8": 2,
        "not_a_file": 1,
        "unsupported_type": 1,
    }
    listed = [json.loads(line) for line in (tmp_path / "set" / "skipped.jsonl").read_text().splitlines()]
    assert {"path": "line\nbreak.txt", "reason": "invalid_utf8"} in listed and len(listed) == 8


def test_english_wordings_never_meet_chinese_documents(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    paragraph = (
        "这座港口是在一个夏天里建成的。它的墙是用北岸的黑石砌成的，没有用任何机器。许多国家的船都在那里等待好天气。"
    )
    (folder / "a.md").write_text(f"# 港口\n\n{paragraph}\n\n{paragraph}\n", encoding="utf-8")
    assert_one_line_error(
        cli("build", "--corpus", str(folder), "--output", str(tmp_path / "set")), "no instruction could be mined"
    )
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--corpus", "missing"], ["corpus 'missing'", "no such folder"]),
        (["--corpus", "empty"], ["corpus 'empty'", "holds no files"]),
        (["--config", "typo.yaml"], ["typo.yaml", "unknown key 'rows_per_famly'", "'rows_per_family'"]),
        (["--config", "type.yaml"], ["type.yaml", "'seed' must be int", "'one'"]),
        (["--config", "broken.yaml"], ["broken.yaml:2", "not YAML"]),
        (["--config", "missing.yaml"], ["missing.yaml", "No such file"]),
        (["--families", "titel"], ["'titel' is not a family", "'title'"]),
        (["--held-out-groups", "namin"], ["'namin' is not a group", "'naming'"]),
        (["--test-documents", "1.5"], ["test_documents", "share"]),
        (["--workers", "0"], ["--workers", "1 or more"]),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, parts):
    (tmp_path / "empty").mkdir()
    (tmp_path / "typo.yaml").write_text("rows_per_famly: 3\n")
    (tmp_path / "type.yaml").write_text("seed: one\n")
    (tmp_path / "broken.yaml").write_text("seed: 1\na: b: c\n")
    assert_one_line_error(cli("build", "--output", "set", *arguments, cwd=tmp_path), *parts)
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.partial").exists()
