"""`instructrec init`: what it says of a corpus and of the build to come, against the build."""

import json
import os
import pydoc_data.topics
import re
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import CODE, ROOT, assert_one_line_error, cli

from data_builders.columns import columns
from data_builders.forecast import survey
from data_builders.proposal import build_yaml, duration, facts, warnings
from data_builders.sniff import Limits
from instructrec.core.errors import UserError
from instructrec.core.schema import SPLITS, read_manifest
from instructrec.first_recipe import count_tokens

MIT = (
    "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this software and"
    " associated documentation files, to deal in the Software without restriction.\n"
)
TOPICS = sorted(pydoc_data.topics.topics.items())


def records(topics: list[tuple[str, str]], size: int = 900) -> list[tuple[str, str]]:
    """(headline, text) of pieces of about `size` characters, whole paragraphs each."""
    found = []
    for name, text in topics:
        piece = ""
        for paragraph in text.split("\n\n"):
            piece += f"{paragraph}\n\n"
            if len(piece) >= size:
                found.append((f"Part {len(found)} of {name}", piece))
                piece = ""
    return found


def write_jsonl(path: Path, entries: list[dict]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `notes`: Markdown in two languages, licensed Python, records with fields of their own."""
    folder = tmp_path_factory.mktemp("init")
    notes = folder / "notes"
    (notes / "tools").mkdir(parents=True)
    for path in (*(ROOT / "tests/fixtures/families").glob("*.md"), *(ROOT / "tests/fixtures/chinese").glob("*.md")):
        (notes / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    for name, text in TOPICS[:12]:
        (notes / f"{name}.rst").write_text(text, encoding="utf-8")
    (notes / "tools" / "LICENSE").write_text(MIT)
    for number in range(6):
        (notes / "tools" / f"tools{number}.py").write_text(CODE.replace("numbers", f"values{number}"))
    entries = [
        {"id": str(number), "headline": headline, "body_text": text, "url": "https://example.org"}
        for number, (headline, text) in enumerate(records(TOPICS[40:60]))
    ]
    write_jsonl(notes / "articles.jsonl", entries)
    (notes / "mail.md").write_text("Write to jane.roe@example.com for the keys of the harbour office.\n")
    (notes / "logo.bin").write_bytes(bytes(range(256)))
    return folder


@pytest.fixture(scope="module")
def proposed(mixed: Path, tiny_model: Path) -> str:
    done = cli("init", "--corpus", "notes", "--model", str(tiny_model), cwd=mixed)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stated(text: str, split: str) -> tuple[int, int, int]:
    """(value, low, high) of a split in the comments of build.yaml."""
    line = next(line for line in text.splitlines() if "expected rows" in line)
    value, low, high = re.search(rf"\b{split} ([\d,]+)(?: \[([\d,]+), ([\d,]+)\])?", line).groups()
    numbers = [int((n or value).replace(",", "")) for n in (value, low, high)]
    return numbers[0], numbers[1], numbers[2]


def comments(path: Path) -> list[str]:
    """The file's lines but those that tell a time, which depends on the machine."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# time:")]


def test_it_says_what_is_in_the_corpus(proposed):
    text = " ".join(proposed.split())
    for part in (
        "read: all",
        "languages: en",
        "zh",
        "MIT 100%",
        "unknown",
        "'body_text'",
        "'headline'",
        "1 unsupported_type (.bin 1)",
        "email in 1",
        "masked",
        "no licence was found for",
        "by the tokenizer of",
    ):
        assert part in text, part


def test_the_printed_commands_give_what_was_stated(proposed, mixed, tiny_model):
    build, plan, train = (shlex.split(line) for line in proposed.splitlines()[-3:])
    assert (build[:2], plan[:2], train[0]) == (["instructrec", "build"], ["instructrec", "plan"], "accelerate")
    folder = mixed / "outputs" / "notes"
    text = (folder / "build.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["fields"] == {"text": "body_text", "title": "headline"}

    done = cli(*build[1:], cwd=mixed)
    assert done.returncode == 0, done.stderr
    rows = read_manifest(folder / "set")["splits"]
    for split in SPLITS:
        value, low, high = stated(text, split)
        assert value == low == high == rows[split], split  # everything was read

    assert Path(train[2]).resolve() == (ROOT / "recipes" / "sft.py").resolve()
    done = cli("plan", train[4], "--dtype", "float32", "--json", cwd=mixed)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["run"]
    notes = (folder / "sft.yaml").read_text(encoding="utf-8")
    tokens = int(re.search(r"about ([\d,]+) tokens", notes)[1].replace(",", ""))
    steps = int(re.search(r"([\d,]+) steps for one epoch", notes)[1].replace(",", ""))
    assert run["left_out"] == 0 and run["epochs"] == 1
    assert run["tokens"] == pytest.approx(tokens, rel=0.1)
    assert run["steps"] == pytest.approx(steps, rel=0.1, abs=1)


def test_the_same_corpus_gives_the_same_files(proposed, mixed, tiny_model):
    again = mixed / "again"
    done = cli(
        "init", "--corpus", "notes", "--model", str(tiny_model), "--output", "again", cwd=mixed, PYTHONHASHSEED="7"
    )
    assert done.returncode == 0, done.stderr
    for name in ("build.yaml", "sft.yaml"):
        first = comments(mixed / "outputs" / "notes" / name)
        assert [line.replace("outputs/notes", "again") for line in first] == comments(again / name)


def test_files_that_are_there_are_kept(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "one.rst").write_text(TOPICS[0][1])

    def init():
        return cli("init", "--corpus", "one", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))

    assert init().returncode == 0
    build, recipe = (tmp_path / "outputs" / "one" / name for name in ("build.yaml", "sft.yaml"))
    build.write_text("# mine\n" + build.read_text())
    recipe.unlink()
    assert init().returncode == 0
    assert build.read_text().startswith("# mine\n") and recipe.exists()
    build.unlink()
    recipe.write_text(recipe.read_text().replace("lora_r: 16", "lora_r: 8"))
    assert_one_line_error(init(), "sft.yaml", "lora_r", "--output")
    assert not build.exists()


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred documents: pages, a table and modules."""
    folder = tmp_path_factory.mktemp("larger") / "docs"
    folder.mkdir()
    for name, text in TOPICS:
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    write_jsonl(folder / "parts.jsonl", [{"title": title, "text": text} for title, text in records(TOPICS, 1500)])
    for number in range(30):
        renamed = CODE.replace("numbers", f"values{number}").replace("items", f"entries{number}")
        (folder / f"tools{number}.py").write_text(renamed.replace("sorted", f"sorted{number}"))
    return folder


def test_a_sample_tells_the_rows_of_the_whole(larger, tmp_path):
    found = survey(str(larger), Limits(files=60, bytes=250_000, records=120))
    assert not found.sample.complete and not found.forecast.exact
    assert sum(form.read_bytes for form in found.sample.formats) < 0.6 * found.sample.bytes
    text = build_yaml(found, "instructrec build", duration(100 + found.forecast.seconds))
    assert re.search(r"# time: about \d+ minutes", text)
    (tmp_path / "build.yaml").write_text(text, encoding="utf-8")
    done = cli("build", "--config", "build.yaml", "--output", "set", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for split, rows in read_manifest(tmp_path / "set")["splits"].items():
        value, low, high = stated(text, split)
        assert low < value < high and low <= rows <= high, (split, rows, value, low, high)


def test_a_sample_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    from data_builders import sniff

    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1500):
        (folder / f"note{number}.txt").write_text(f"{TOPICS[number % 50][1][:300]}\n")
    body = " ".join(TOPICS[3][1].split())[:500]
    entries = [{"text": f"{number} {body}", "license": "CC0-1.0"} for number in range(20_000)]
    write_jsonl(folder / "all.jsonl", entries)
    (folder / "large.txt").write_text(TOPICS[0][1] * 2000)

    opened, read_file = set(), sniff.read

    def read(path, *rest, **more):
        opened.add(path)
        return read_file(path, *rest, **more)

    monkeypatch.setattr(sniff, "read", read)
    found = survey(str(folder), Limits(files=50, bytes=400_000, records=100))
    sample = found.sample
    assert len(opened) < 70 and folder / "large.txt" not in opened
    read = {form.suffix: sum(excerpt.seen.total() for excerpt in form.excerpts) for form in sample.formats}
    assert read[".txt"] <= 50 and read[".jsonl"] <= 120
    form = next(form for form in sample.formats if form.suffix == ".jsonl")
    assert form.documents == pytest.approx(20_000, rel=0.05)  # told from parts all over the file
    assert "fixed sample" in facts(found)[0]


def test_parts_of_every_format_of_records_tell_how_many_there_are(tmp_path):
    import csv
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_builders.documents import Fields
    from data_builders.sniff import draw

    pieces = records(TOPICS, 300)
    rows = [{"title": f"{i} {title}", "text": f"{i} {text}"} for i in range(3) for title, text in pieces]
    folder = tmp_path / "records"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", rows)
    with gzip.open(folder / "b.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with (folder / "c.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["title", "text"])
        table.writeheader()
        table.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / "d.parquet", row_group_size=100)
    pa.CompressedOutputStream(str(folder / "e.jsonl.zst"), "zstd").write((folder / "a.jsonl").read_bytes())
    (folder / "f.mbox").write_text(
        "".join(f"From a\nSubject: {row['title']}\n\n{row['text']}\n\n" for row in rows), encoding="utf-8"
    )

    sample = draw(str(folder), Limits(files=10, bytes=1 << 20, records=600))
    for _, records_of_file in sample.readings("", Fields()):
        for _ in records_of_file:
            pass
    assert len(sample.formats) == 6
    for form in sample.formats:
        assert form.cut and form.share < 0.5, form.suffix
        assert form.documents == pytest.approx(len(rows), rel=0.3), form.suffix


def test_near_duplicates_of_a_sample_are_told(tmp_path):
    pieces = records(TOPICS[:30])
    for place, of_each in (("once", 1), ("often", 4)):
        (tmp_path / place).mkdir()
        entries = [{"text": text, "title": f"{title}, {n}"} for n in range(of_each) for title, text in pieces]
        write_jsonl(tmp_path / place / "a.jsonl", entries)
    limits = Limits(records=len(pieces) // 2)
    told = {place: "\n".join(warnings(survey(str(tmp_path / place), limits))) for place in ("once", "often")}
    assert re.search(r"\d+% of the documents of the sample are near duplicates .* fewer rows", told["often"])
    assert "near duplicates" not in told["once"]


def test_what_no_reader_takes_changes_no_number(larger, tmp_path):
    limits = Limits(files=40, bytes=200_000, records=80)
    expected = survey(str(larger), limits).forecast
    folder = tmp_path / larger.name
    folder.mkdir()
    for path in larger.iterdir():
        (folder / path.name).symlink_to(path)
    for number in range(500):
        (folder / f"log.2026{number:04}").write_text("x")
    with (folder / "a.bin").open("wb") as file:
        file.truncate(1 << 30)
    found = survey(str(folder), limits)
    assert (found.forecast.splits, found.forecast.kinds) == (expected.splits, expected.kinds)
    assert "501 unsupported_type (" in " ".join(facts(found))


def test_a_reader_that_fails_is_named(tmp_path, monkeypatch):
    from data_builders import sniff

    (tmp_path / "a.txt").write_text(TOPICS[0][1])

    def read(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(sniff, "read", read)
    with pytest.raises(UserError, match=r"none of its 1 files can be read \(1 reader_failed\)"):
        survey(str(tmp_path))


def test_a_file_that_ends_too_early_is_named(tmp_path):
    import gzip

    folder = tmp_path / "packed"
    folder.mkdir()
    rows = [{"title": f"{i} {title}", "text": f"{i} {text}"} for i in range(3) for title, text in records(TOPICS)]
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    for number in range(3):
        (folder / f"{number}.jsonl.gz").write_bytes(packed)
        (folder / f"{number}short.jsonl.gz").write_bytes(packed[: len(packed) * 2 // 3])
    found = survey(str(folder), Limits(bytes=300_000, records=2000))
    form = found.sample.formats[0]
    assert form.cut and form.documents == pytest.approx(5 * len(rows), rel=0.3)


HOSTILE = "x\ncorpus: /etc\n\x1b[31m[bold]#\u2028: {"


def test_names_that_others_wrote_break_nothing(tmp_path):
    folder = tmp_path / "odd: #[red]\n'name'"
    folder.mkdir()
    for number, name in enumerate(
        ("a\nb.rst", "[bold]c.rst", "\x1b[31md.rst", "e: f #.rst", os.fsdecode(b"\xff.rst"), "g.{h")
    ):
        (folder / name).write_text(TOPICS[number][1], encoding="utf-8")
    entries = [
        {HOSTILE: text, "title": title, "license": HOSTILE, f"also {HOSTILE}": "x", "language": "en\n"}
        for title, text in records(TOPICS[:40])
    ]
    write_jsonl(folder / "z\n[i].jsonl", entries)
    done = cli("init", "--corpus", folder.name, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "\u2028" not in done.stdout and "because the tokenizer" in done.stdout
    output = tmp_path / "outputs" / "odd-red-name"
    build = yaml.safe_load((output / "build.yaml").read_text(encoding="utf-8"))
    assert build["corpus"] == folder.name and build["fields"] == {"text": HOSTILE}
    assert set(build) == {
        "corpus",
        "fields",
        "personal_data",
        "test_documents",
        "validation_documents",
        "rows_per_family",
        "seed",
    }
    commands = done.stdout.splitlines()[-3:]
    built = cli(*shlex.split(commands[0])[1:], cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    assert (
        yaml.safe_load((output / "sft.yaml").read_text(encoding="utf-8"))["dataset_name"] == "outputs/odd-red-name/set"
    )


def test_languages_and_splits_without_rows_are_told(tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "LICENSE").write_text(MIT)
    (folder / "one.rst").write_text(TOPICS[0][1])
    french = (
        "Le port fut construit en un seul été, et les navires de nombreux pays y attendent depuis ce temps la marée. "
    )
    for number in range(4):
        (folder / f"fr{number}.md").write_text(f"# Le port {number}\n\n{french * 4}\n")
    found = survey(str(folder))
    told = "\n".join(warnings(found))
    assert re.search(r"\d+% of the text is in 'fr', for which \d+ of \d+ families have wordings", told)
    empty = [split for split in SPLITS if not found.forecast.splits[split].value]
    assert empty and ", ".join(empty) in told
    assert "no licence" not in told


def test_a_set_without_validation_rows_is_not_evaluated_on(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "one.rst").write_text(TOPICS[0][1] + TOPICS[1][1])
    done = cli("init", "--corpus", "one", cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    recipe = yaml.safe_load((tmp_path / "outputs" / "one" / "sft.yaml").read_text())
    assert recipe["eval_strategy"] == "no" and recipe["load_best_model_at_end"] is False
    assert "eval_steps" not in recipe


def test_fields_of_records(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    long, short = "The ships that wait outside need the tide to come in at night. " * 3, "A headline"
    rows = [{"id": str(i), "subject": f"{short} {i}", "comment": long, "note": "two words"} for i in range(5)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    lines = ["id;subject;comment;note", *(";".join(row.values()) for row in rows)]
    (tmp_path / "c.csv").write_text("\n".join(lines) + "\n")
    write_jsonl(tmp_path / "d.jsonl", [{"meta": {"name": "Inner"}, "doc": {"main": long}}])
    write_jsonl(tmp_path / "e.jsonl", [{"text": "short", "comment": long}])
    for name in ("a.jsonl", "b.parquet", "c.csv"):
        its = columns(tmp_path / name)
        assert (its.text, its.title, its.usual) == ("comment", "subject", False), name
    assert columns(tmp_path / "d.jsonl").text == "doc.main"
    assert columns(tmp_path / "e.jsonl").usual
    write_jsonl(tmp_path / "f.jsonl", [{"n": "1", "mark": "good"}])
    assert columns(tmp_path / "f.jsonl").text == ""
    (tmp_path / "g.md").write_text(long)
    assert columns(tmp_path / "g.md") is None


def test_tokens_are_those_of_the_rows(tiny_model):
    from instructrec.models import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    rows = [
        (2.0, [{"role": "user", "content": text}], [{"role": "assistant", "content": title}])
        for title, text in records(TOPICS[:20], 300)
    ]
    lengths = [
        len(tokenizer.apply_chat_template(prompt + answer, return_dict=True)["input_ids"]) for _, prompt, answer in rows
    ]
    counted = count_tokens(rows, str(tiny_model))
    assert counted.longest == max(lengths)
    assert counted.total == pytest.approx(2 * sum(lengths), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--corpus", "nowhere"], ["nowhere", "no such folder"]),
        (["--corpus", "empty"], ["empty", "holds no files"]),
        (["--corpus", "binary"], ["none of its 2 files can be read", "1 binary", "1 unsupported_type"]),
        (["--corpus", "words"], ["no instruction could be mined from 1 documents"]),
        (["--corpus", "hf://owner/name"], ["init looks at files alone", "instructrec build"]),
        (["--corpus", "words", "--output", "words/out"], ["--output", "inside the corpus"]),
        (["--corpus", "words", "--model", "./nowhere"], ["model './nowhere'", "no such folder"]),
        (["--corpus", "one", "--output", "taken"], ["taken", "choose another place"]),
        ([], ["--corpus"]),
    ],
)
def test_mistakes_are_one_line(arguments, parts, tmp_path):
    for name in ("empty", "binary", "words", "one"):
        (tmp_path / name).mkdir()
    (tmp_path / "binary" / "a.bin").write_bytes(b"\0")
    (tmp_path / "binary" / "a.txt").write_bytes(b"\0")
    (tmp_path / "words" / "a.txt").write_text("too short")
    (tmp_path / "one" / "one.rst").write_text(TOPICS[0][1])
    (tmp_path / "taken").write_text("a file")
    assert_one_line_error(cli("init", *arguments, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path)), *parts)
