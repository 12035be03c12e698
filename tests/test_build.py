"""The builder through its command: the contract, the hold-out, determinism, and what bad input does."""

import json
import os
import pydoc_data.topics
import random
import re
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


@pytest.fixture
def in_this_process(monkeypatch):
    """Let a build with one worker do everything here, where what a test replaces is replaced."""
    from multiprocessing.pool import ThreadPool

    from data_builders import engine

    monkeypatch.setattr(engine, "_process", lambda: ThreadPool(1))


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
                assert span.startswith(row["completion"][0]["content"].removeprefix("title: "))
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


def write_train(folder: Path, train: list[dict]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from instructrec.core.schema import INSTRUCTION

    pq.write_table(pa.Table.from_pylist(train, INSTRUCTION), folder / "train" / "00000.parquet")


@pytest.fixture(scope="module")
def unrelated(instruction_set, tmp_path_factory):
    """The set without training rows whose passage a held-out row has."""
    from instructrec.core.passages import Passages

    folder = tmp_path_factory.mktemp("unrelated") / "set"
    shutil.copytree(instruction_set, folder)
    train, leaking = rows(folder, "train"), {""}
    while leaking:
        passages = Passages()
        for row in rows(folder, "validation", *HELD_OUT):
            passages.hold_out(row)
        for row in train:
            passages.train(row)
        leaking = {leak.train for leak in passages.leaks()}
        train = [row for row in train if row["id"] not in leaking]
    write_train(folder, train)
    return folder


@pytest.mark.parametrize("same_wording", [True, False])
def test_training_refuses_a_passage_of_a_held_out_row_from_another_document(unrelated, tmp_path, same_wording):
    check_hold_out(unrelated)
    folder = tmp_path / "set"
    shutil.copytree(unrelated, folder)
    train = rows(folder, "train")
    asked = next(row for row in rows(folder, "test_documents") if row["family"] == "evidence")
    number = next(i for i, r in enumerate(train) if r["family"] == "evidence" and r["template"] != asked["template"])
    if same_wording:
        train[number]["template"] = asked["template"]
    prompt = asked["prompt"][0]["content"]
    words = prompt.split(" ")
    words[len(words) // 2] = "somewhat"
    train[number]["prompt"] = [{"role": "user", "content": " ".join(words) + " That is all of it."}]
    write_train(folder, train)
    with pytest.raises(UserError, match=f"training row {train[number]['id']} that of {asked['id']}") as caught:
        check_hold_out(folder)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def repetitive(tmp_path_factory):
    """The corpus with twelve of its pages a second time, a sentence longer."""
    folder = write_corpus(tmp_path_factory.mktemp("repetitive") / "docs")
    for number, path in enumerate(sorted(folder.glob("*.rst"))[:12]):
        copy = path.read_text(encoding="utf-8") + f"\nOne more closing remark, number {number}.\n"
        (folder / f"z-copy-of-{path.name}").write_text(copy, encoding="utf-8")
    return folder


def test_near_duplicate_documents_are_left_out(repetitive, tmp_path):
    assert cli("build", "--corpus", str(repetitive), "--output", str(tmp_path / "set")).returncode == 0
    manifest = read_manifest(tmp_path / "set")
    # The shortest pages are changed by more than the threshold when they get another sentence.
    assert manifest["corpus"]["near_duplicates"] >= 8
    assert sum(family["rejected"].get("near_duplicate", 0) for family in manifest["families"].values()) >= 8
    copies = {s["path"] for row in rows(tmp_path / "set") for s in row["source"] if "copy-of" in s["path"]}
    assert len(copies) <= 4


def test_near_duplicate_documents_stay_on_one_side_even_without_that_gate(repetitive, tmp_path):
    gates = ("--gates", "empty,long,leak")
    assert cli("build", "--corpus", str(repetitive), "--output", str(tmp_path / "set"), *gates).returncode == 0
    originals = {s["path"] for row in rows(tmp_path / "set") for s in row["source"]}
    assert len([path for path in originals if "copy-of" in path]) >= 8
    sides: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in rows(tmp_path / "set", split):
            name = row["source"][0]["path"].removeprefix("z-copy-of-")
            sides.setdefault(name, set()).add("test" if split in HELD_OUT else split)
    together = [name for name, found in sides.items() if len(found) == 1]
    assert len(together) >= len(sides) - 4


def test_rejects_are_counted_and_some_are_kept_for_reading(instruction_set):
    counted = {
        (name, gate): n
        for name, family in read_manifest(instruction_set)["families"].items()
        for gate, n in family["rejected"].items()
    }
    kept: dict[tuple[str, str], int] = {}
    for line in (instruction_set / "rejected.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        assert entry["answer"] and entry["source"]
        kept[entry["family"], entry["gate"]] = kept.get((entry["family"], entry["gate"]), 0) + 1
    assert counted and kept == {key: min(n, 10) for key, n in counted.items()}


def test_secrets_and_personal_data_never_reach_an_instruction(tmp_path):
    folder = write_corpus(tmp_path / "docs")
    mail, key = "jane.roe@" + "harbourmail.org", "AKIA" + "IOSFODNN7QWERTYU"
    paragraph = (
        f"Questions about the northern harbour go to {mail} before the month ends. The access key {key} opens the "
        "archive of the harbour, where the letters of the northern captains are kept. Every letter of the archive was "
        "copied by hand before the harbour was built, and no letter was ever lost."
    )
    for number in range(12):
        (folder / f"harbour{number}.md").write_text(f"# Harbour {number}\n\n{paragraph} Copy {number * 37} of it.\n")
    gates = "empty,long,leak,unanswerable,trivial,foreign,privacy"
    for name, option in (("mask", "mask"), ("drop", "drop")):
        done = cli(
            *("build", "--corpus", str(folder), "--output", str(tmp_path / name)),
            *("--gates", gates, "--personal-data", option),
        )
        assert done.returncode == 0, done.stderr
        everything = json.dumps(rows(tmp_path / name)) + (tmp_path / name / "rejected.jsonl").read_text()
        assert mail not in everything and key not in everything
        assert ("<EMAIL>" in json.dumps(rows(tmp_path / name))) == (option == "mask")
    families = read_manifest(tmp_path / "drop")["families"].values()
    assert sum(family["rejected"].get("privacy", 0) for family in families) >= 5


def test_no_personal_address_of_the_peps_reaches_a_row(tmp_path):
    """Every PEP opens with its authors' addresses. A list's archive and a service's account are nobody's in person."""
    peps = Path(__file__).parents[2] / "shared" / "corpora" / "peps"
    if not peps.is_dir():
        pytest.skip("the PEPs are not beside the project")
    options = ("--per-document", "50", "--rows-per-family", "100000", "--answer-words-per-family", "10000000")
    done = cli("build", "--corpus", str(peps), "--output", str(tmp_path / "set"), *options)
    assert done.returncode == 0, done.stderr
    messages = [message for row in rows(tmp_path / "set") for message in row["prompt"] + row["completion"]]
    rejects = [json.loads(line) for line in (tmp_path / "set" / "rejected.jsonl").read_text().splitlines()]
    text = "\n".join([m["content"] for m in messages] + [f"{r['prompt']}\n{r['answer']}" for r in rejects])
    outside_archives = re.sub(r"/list/[^/\s@]+@[^/\s@]+/", "/list/", text)
    found = set(re.findall(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}", outside_archives))
    assert {address for address in found if address.split("@")[0] not in {"hg", "git"}} == set()
    assert len(text) > 5_000_000


def test_rows_that_overlap_with_an_evaluation_are_removed(corpus, instruction_set, tmp_path):
    victim = next(row for row in rows(instruction_set, "train") if row["family"] == "evidence")
    question = {"instruction": "Sum this up.", "input": victim["prompt"][0]["content"], "output": "…"}
    (tmp_path / "evaluation.jsonl").write_text(json.dumps(question) + "\n")
    options = ("--decontaminate", str(tmp_path / "evaluation.jsonl"))
    done = cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "set"), *options)
    assert done.returncode == 0, done.stderr
    assert victim["id"] not in {row["id"] for row in rows(tmp_path / "set")}
    rejected = read_manifest(tmp_path / "set")["families"]["evidence"]["rejected"]
    assert rejected["contamination"] >= 1


def test_balance_by_weights_and_answer_words(corpus, tmp_path):
    (tmp_path / "build.yaml").write_text("weights: {title: 0, function_name: 0.5}\nanswer_words_per_family: 300\n")
    options = ("--config", str(tmp_path / "build.yaml"))
    assert cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "set"), *options).returncode == 0
    answers: dict[str, int] = {}
    for row in rows(tmp_path / "set", "train"):
        answers[row["family"]] = answers.get(row["family"], 0) + len(row["completion"][0]["content"].split())
    assert "title" not in answers and answers["evidence"] > 100
    # What a wording's format adds to an answer, as JSON does, is not counted.
    assert max(answers.values()) <= 400 and answers["function_name"] <= 200


@pytest.mark.usefixtures("in_this_process")
def test_a_failing_family_costs_its_own_examples_only(corpus, tmp_path, monkeypatch):
    from dataclasses import replace

    from data_builders.config import BuildConfig
    from data_builders.families import families
    from data_builders.pipeline import build

    def mine(document, rng):
        raise ValueError("a bug")
        yield

    broken = replace(families()["title"], mine=mine)
    broken.__dict__["templates"] = families()["title"].templates
    monkeypatch.setitem(families(), "title", broken)
    manifest = build(BuildConfig(corpus=str(corpus)), tmp_path / "set", 1, lambda folder: None)
    assert manifest["corpus"]["skipped"]["family_failed:title"] == 40
    assert manifest["families"].pop("title")["rows"] == 0
    # The help topics have no rows for families that look for what they lack.
    assert all(manifest["families"][name]["rows"] for name in ("section_heading", "missing_word", "function_name"))


@pytest.mark.usefixtures("in_this_process")
def test_a_file_that_a_reader_did_not_foresee_is_named_with_its_error(corpus, tmp_path, monkeypatch):
    from data_builders import mining
    from data_builders.config import BuildConfig
    from data_builders.pipeline import build

    sound = mining.read

    def read(path, name, licence, **options):
        if name == "tools0.py":
            raise IndexError("a bug")
        return sound(path, name, licence, **options)

    monkeypatch.setattr(mining, "read", read)
    manifest = build(BuildConfig(corpus=str(corpus)), tmp_path / "set", 1, lambda folder: None)
    assert manifest["corpus"]["skipped"] == {"reader_failed": 1}
    (entry,) = map(json.loads, (tmp_path / "set" / "skipped.jsonl").read_text().splitlines())
    assert entry == {"path": "tools0.py", "reason": "reader_failed", "error": "IndexError('a bug')"}


@pytest.mark.usefixtures("in_this_process")
def test_a_full_disk_is_one_line_and_loses_nothing(corpus, instruction_set, tmp_path, monkeypatch):
    import errno

    from data_builders import pipeline
    from data_builders.config import BuildConfig

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "render_shard", full)
        with pytest.raises(UserError, match="the disk is full; free some space"):
            pipeline.build(BuildConfig(corpus=str(corpus)), tmp_path / "set", 1, lambda folder: None)
    assert not (tmp_path / "set").exists() and list((tmp_path / "set.partial" / "mined").glob("*.parquet"))
    pipeline.build(BuildConfig(corpus=str(corpus)), tmp_path / "set", 1, lambda folder: None)
    assert content(tmp_path / "set") == content(instruction_set)


@pytest.mark.usefixtures("in_this_process")
def test_passages_compared_in_many_parts_with_an_interruption_give_the_same_set(
    corpus, instruction_set, tmp_path, monkeypatch
):
    import errno

    from data_builders import overlaps, pipeline
    from data_builders.config import BuildConfig

    monkeypatch.setattr(overlaps, "NGRAMS_IN_MEMORY", 20_000)
    compare = overlaps._compare

    def full(runs, folder, part):
        if part == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        compare(runs, folder, part)

    with monkeypatch.context() as patch:
        patch.setattr(overlaps, "_compare", full)
        with pytest.raises(UserError, match="the disk is full; free some space"):
            pipeline.build(BuildConfig(corpus=str(corpus)), tmp_path / "set", 1, lambda folder: None)
    marks = [*(tmp_path / "set.partial" / "rendered" / "overlaps-0").glob("*.npz")]
    assert len(marks) == 4  # three parts, and what they read
    pipeline.build(BuildConfig(corpus=str(corpus)), tmp_path / "set", 1, lambda folder: None)
    assert content(tmp_path / "set") == content(instruction_set)


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


@pytest.mark.usefixtures("in_this_process")
def test_one_large_file_is_cut_into_shards_by_bytes(corpus, tmp_path, monkeypatch):
    """A JSONL file of many records gives the same rows whether one worker reads it whole or several read parts."""
    from data_builders import pipeline
    from data_builders.config import BuildConfig

    folder = tmp_path / "docs"
    folder.mkdir()
    records = [{"title": path.stem, "text": path.read_text(encoding="utf-8")} for path in sorted(corpus.glob("*.rst"))]
    lines = [json.dumps(record) for record in records] + ["{broken", '{"no": "text"}']
    (folder / "pages.jsonl").write_text("\n".join(lines) + "\n")
    manifests, ids = [], []
    for name, size in (("whole", 1 << 30), ("parts", 50_000)):
        monkeypatch.setattr(pipeline, "SHARD_BYTES", size)
        monkeypatch.setattr(pipeline, "MOST_SHARD_BYTES", size)
        manifests.append(pipeline.build(BuildConfig(corpus=str(folder)), tmp_path / name, 1, lambda folder: None))
        ids.append(sorted(row["id"] for row in rows(tmp_path / name)))
    assert len(list((tmp_path / "parts" / "train").iterdir())) > 1
    assert ids[0] == ids[1] and len(ids[0]) > 100
    assert manifests[0]["corpus"] == manifests[1]["corpus"]
    assert manifests[0]["corpus"]["skipped"] == {"invalid_json": 1, "no_text_field": 1}


def test_records_with_fields_of_other_names(corpus, tmp_path):
    pages = sorted(corpus.glob("*.rst"))
    records = [{"heading": path.stem, "page": {"words": path.read_text(encoding="utf-8")}} for path in pages]
    lines = [json.dumps(record) + "\n" for record in records]
    (tmp_path / "pages.jsonl").write_text("".join(lines))
    (tmp_path / "build.yaml").write_text("fields: {text: page.words, title: heading, layout: rst}\n")
    build = ("build", "--corpus", str(tmp_path / "pages.jsonl"), "--output")
    assert_one_line_error(cli(*build, str(tmp_path / "none")), f"{len(records)} no_text_field")
    for name, flags in (
        ("yaml", ("--config", str(tmp_path / "build.yaml"))),
        ("flag", ("--fields", "text=page.words, title=heading, layout=rst")),
    ):
        done = cli(*build, str(tmp_path / name), *flags)
        assert done.returncode == 0, done.stderr
    assert content(tmp_path / "yaml") == content(tmp_path / "flag")
    given = {"text": "page.words", "title": "heading", "layout": "rst"}
    assert read_manifest(tmp_path / "flag")["config"]["fields"] == given
    row = rows(tmp_path / "flag", "train")[0]
    done = cli("trace", row["id"], "--set", str(tmp_path / "flag"), "--corpus", str(tmp_path / "pages.jsonl"))
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "re-derived: identical", done.stdout


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


def test_files_of_unsupported_formats_change_no_row(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in sorted(pydoc_data.topics.topics.items()):
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    options = ("--rows-per-family", "4", "--heldout-rows-per-family", "2", "--workers", "1")
    done = cli("build", "--corpus", str(folder), "--output", str(tmp_path / "without"), *options)
    assert done.returncode == 0, done.stderr
    for name in ("A first.zip", "in.png", "z.bin"):
        with (folder / name).open("wb") as file:
            file.truncate(1 << 30)
    done = cli("build", "--corpus", str(folder), "--output", str(tmp_path / "with"), *options)
    assert done.returncode == 0, done.stderr
    assert {name: rows(tmp_path / "with", name) for name in SPLITS} == {
        name: rows(tmp_path / "without", name) for name in SPLITS
    }
    listed = [json.loads(line) for line in (tmp_path / "with" / "skipped.jsonl").read_text().splitlines()]
    assert {(entry["path"], entry["reason"]) for entry in listed} >= {
        (name, "unsupported_type") for name in ("A first.zip", "in.png", "z.bin")
    }


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


def test_another_corpus_of_the_same_names_sizes_and_old_times_is_not_taken_for_the_first(tmp_path):
    for name in ("a", "b"):
        folder = write_corpus(tmp_path / name / "docs")
        for path in folder.iterdir():
            if name == "b":
                path.write_bytes(path.read_bytes().swapcase())
            os.utime(path, (1_000_000_000, 1_000_000_000))
    first, second = (str(tmp_path / name / "docs") for name in ("a", "b"))
    assert cli("build", "--corpus", first, "--output", str(tmp_path / "set")).returncode == 0
    assert_one_line_error(cli("build", "--corpus", second, "--output", str(tmp_path / "set")), "another corpus")


def test_a_corpus_too_small_to_hold_out_still_trains(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "tools.py").write_text((write_corpus(tmp_path / "other") / "tools0.py").read_text().replace("\n", "\r\n"))
    done = cli("build", "--corpus", str(folder), "--output", str(tmp_path / "set"))
    assert done.returncode == 0 and "no rows in validation" in done.stdout
    data = load_set(str(tmp_path / "set"))
    assert len(data["train"]) > 3 and len(data["validation"]) == 0
    assert not any("\r" in row["prompt"][0]["content"] + row["completion"][0]["content"] for row in data["train"])


def test_two_builds_do_not_write_one_set(corpus, tmp_path):
    from instructrec.core.files import locked

    with locked(tmp_path / ".set.lock"):
        done = cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "set"))
        assert_one_line_error(done, "another build is writing it")
    assert cli("build", "--corpus", str(corpus), "--output", str(tmp_path / "set")).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_ctrl_c_says_how_to_go_on(corpus, instruction_set, tmp_path):
    output = tmp_path / "set"
    command = [sys.executable, "-m", "instructrec", "build", "--corpus", str(corpus), "--output", str(output)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not output.with_name("set.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert content(output) == content(instruction_set)


def test_ctrl_c_that_something_swallowed_ends_the_stage(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from data_builders import engine
from instructrec.core.errors import run

folder = Path({str(tmp_path)!r})

def swallow(executor):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True: pass
    except BaseException:
        pass

engine._QuietLocal.run = swallow
stage = engine.Stage("mining", print, [1], folder, "documents")
run(lambda: engine.run_stage(stage, folder / "logs", 1, "local"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 130 and "run the same command again to resume" in done.stderr


@pytest.mark.parametrize("place", ["a-file", "a-file/set"])
def test_a_place_that_cannot_be_written_is_one_line(corpus, tmp_path, place):
    (tmp_path / "a-file").write_text("in the way")
    assert_one_line_error(cli("build", "--corpus", str(corpus), "--output", str(tmp_path / place)), "a-file")


def test_a_set_inside_its_corpus_is_refused(tmp_path):
    folder = write_corpus(tmp_path / "docs")
    done = cli("build", "--corpus", str(folder), "--output", str(folder / "set"))
    assert_one_line_error(done, "inside the corpus")


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
        (["--fields", "txt=body"], ["fields: 'txt' is not a field of records", "'text'"]),
        (["--fields", "text"], ["--fields", "text=body,title=name", "not 'text'"]),
        (["--fields", "text="], ["fields: text must be the name of a field"]),
        (["--fields", "layout=markdwon"], ["fields: layout must be one of markdown, plain, rst", "'markdown'"]),
        (["--config", "fields.yaml"], ["fields: title must be the name of a field", "3"]),
        (["--held-out-groups", "namin"], ["'namin' is not a group", "'naming'"]),
        (["--test-documents", "1.5"], ["test_documents", "share"]),
        (["--workers", "0"], ["--workers", "1 or more"]),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, parts):
    (tmp_path / "empty").mkdir()
    (tmp_path / "typo.yaml").write_text("rows_per_famly: 3\n")
    (tmp_path / "type.yaml").write_text("seed: one\n")
    (tmp_path / "fields.yaml").write_text("fields: {title: 3}\n")
    (tmp_path / "broken.yaml").write_text("seed: 1\na: b: c\n")
    assert_one_line_error(cli("build", "--output", "set", *arguments, cwd=tmp_path), *parts)
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.partial").exists()
