"""From a row to its bytes and back: what `trace` shows, that rows derive again, and what it says when they do not."""

import gzip
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import assert_one_line_error, cli

from data_builders.config import BuildConfig
from data_builders.documents import Document, read
from data_builders.mining import mine, pack, pack_source
from data_builders.rendering import Renderer
from data_builders.trace import RawFiles, config_of, find_row, rederive, trace
from instructrec.core.errors import UserError
from instructrec.core.schema import INSTRUCTION, SPLITS, read_manifest, read_split

PARAGRAPH = (
    "The harbour office keeps a list of every boat that is expected during the week, and the list is copied twice a "
    "day for the pilots. A boat that is late must send word to {} before noon. The pilots then wait on the northern "
    "pier, where the water is deep enough at any tide. Nobody else may moor there while the lamp is lit."
)


def rows(folder: Path) -> list[tuple[str, dict]]:
    return [(split, row) for split in SPLITS for row in read_split(folder, split)]


def derived(place: Path, name: str, config: BuildConfig) -> list[dict]:
    """Every row that one file's documents become on the training side, as a build makes them."""
    found = []
    for document in read(place, name, config.document_licence):
        if isinstance(document, Document):
            for family, example in mine(document, config):
                assert not isinstance(example, Exception)
                text = pack_source(document, example)
                renderer = Renderer(config, {}, None)
                for rendered in renderer.rows(family.name, document.language, pack(example), text, "train"):
                    found.append(dict(zip(INSTRUCTION.names, rendered.values, strict=True)))
    return found


def change(folder: Path, split: str, number: int, **columns: object) -> None:
    """Overwrite columns of one row of a set."""
    path = folder / split / "00000.parquet"
    table = pq.read_table(path).to_pylist()
    table[number] |= columns
    pq.write_table(pa.Table.from_pylist(table, INSTRUCTION), path)


@pytest.fixture
def own_set(instruction_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(instruction_set, folder)
    return folder


def test_rows_of_every_family_and_split_derive_again(instruction_set, corpus):
    config = config_of(read_manifest(instruction_set), str(corpus))
    raw, seen = RawFiles(str(corpus)), dict.fromkeys(range(0))
    for split, row in rows(instruction_set):
        if (kind := (split, row["family"])) in seen:
            continue
        seen[kind] = None
        place, name = raw.place(row["source"][0])
        result = rederive(row, read(place, name, config.document_licence), config)
        assert result.identical, (split, row["id"], result.differences)
    assert len(seen) > 20


def test_trace_prints_the_bytes_and_derives_the_row(instruction_set, corpus):
    split, row = next(entry for entry in rows(instruction_set) if entry[1]["family"] == "function_to_docstring")
    done = cli("trace", row["id"][:12], "--set", str(instruction_set), "--corpus", str(corpus))
    assert done.returncode == 0, done.stderr
    source = row["source"][0]
    raw = (corpus / source["path"]).read_bytes()[source["start"] : source["end"]].decode()
    printed = "\n".join(line.removeprefix("│ ") for line in done.stdout.splitlines())
    assert raw in printed
    for part in (row["id"], split, source["path"], f"{source['start']}..{source['end']}", source["extractor"]):
        assert part in done.stdout
    assert row["completion"][0]["content"] in printed
    assert done.stdout.splitlines()[-1] == "re-derived: identical"


@pytest.mark.parametrize(
    ("columns", "parts"),
    [
        ({"completion": [{"role": "assistant", "content": "Not what the bytes say."}]}, ["completion: 'Not what"]),
        ({"template": "title.en.99"}, ["template: '"]),
        ({"targets": ["Another answer."]}, ["targets: '"]),
        ({"family": "no_such_family"}, ["family: 'no_such_family' is not among the families"]),
    ],
)
def test_a_row_that_does_not_derive_again_is_exit_1(own_set, corpus, columns, parts):
    number, row = next((i, r) for i, r in enumerate(read_split(own_set, "train")) if r["family"] == "title")
    change(own_set, "train", number, **columns)
    done = cli("trace", row["id"], "--set", str(own_set), "--corpus", str(corpus))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "NOT re-derivable" in done.stdout and "identical" not in done.stdout
    for part in parts:
        assert part in done.stdout


def test_a_span_that_no_example_has_is_said(instruction_set, corpus):
    config = config_of(read_manifest(instruction_set), str(corpus))
    row = next(row for _, row in rows(instruction_set) if row["family"] == "title")
    place, name = RawFiles(str(corpus)).place(row["source"][0])
    shifted = row | {"source": [row["source"][0] | {"start": row["source"][0]["start"] + 1}]}
    outside = row | {"source": [row["source"][0] | {"end": 10**9}]}
    assert rederive(shifted, read(place, name, ""), config).differences == (
        "family: title finds no example in these bytes",
    )
    assert rederive(outside, read(place, name, ""), config).differences == ("source: no document holds these bytes",)
    gone = rederive(row, read(place.with_name("gone.rst"), name, ""), config)
    assert gone.differences == ("source: the file cannot be read now (not_a_file)",)


def test_ids_may_be_shortened_as_long_as_they_are_clear(own_set, corpus):
    first, second = (row["id"] for _, row in zip(range(2), read_split(own_set, "train"), strict=False))
    change(own_set, "train", 1, id=first[:8] + second[8:])
    assert find_row(own_set, first)[1]["id"] == first
    assert find_row(own_set, first.upper())[0] == "train"
    for prefix, parts in {
        first[:8]: ["beginning of 2 ids", first, first[:8] + second[8:], "train", "more digits"],
        first[:5]: ["6 to 32 hex digits"],
        "what": ["6 to 32 hex digits"],
        "0000000000": ["no row's id begins with"],
    }.items():
        done = cli("trace", prefix, "--set", str(own_set), "--corpus", str(corpus))
        assert_one_line_error(done, *parts)


def test_mistakes_are_one_line(instruction_set, corpus, tmp_path):
    row = rows(instruction_set)[0][1]
    ask = ("trace", row["id"], "--set", str(instruction_set))
    assert_one_line_error(cli(*ask), f"corpus named {corpus.name!r}", "--corpus")
    assert_one_line_error(cli(*ask, "--corpus", "missing"), "corpus 'missing'", "no such folder")
    copy = tmp_path / "docs"
    shutil.copytree(corpus, copy)
    path = copy / row["source"][0]["path"]
    path.write_bytes(path.read_bytes() + b"\n")
    assert_one_line_error(cli(*ask, "--corpus", str(copy)), path.name, "changed since the build")
    path.unlink()
    assert_one_line_error(cli(*ask, "--corpus", str(copy)), f"has no file {row['source'][0]['path']!r}")
    assert_one_line_error(cli("trace", row["id"], "--set", str(tmp_path)), "not an instruction set")


def test_a_set_of_another_version_is_refused(instruction_set):
    manifest = read_manifest(instruction_set)
    manifest["config"]["shininess"] = 3
    with pytest.raises(UserError, match="'shininess'"):
        config_of(manifest, "python")


def test_masked_rows_derive_again_and_say_how_much_was_masked(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    text = "# The harbour\n\n" + "\n\n".join(
        f"## Part {word}\n\n{PARAGRAPH.format(f'{word}.miller@harbour-office.org')}" for word in ("one", "two", "three")
    )
    (folder / "harbour.md").write_text(text)
    config = BuildConfig(corpus=str(folder))
    found = derived(folder / "harbour.md", "harbour.md", config)
    masked = [row for row in found if "<EMAIL>" in row["prompt"][0]["content"] + row["completion"][0]["content"]]
    assert masked
    for row in masked:
        result = rederive(row, read(folder / "harbour.md", "harbour.md", config.document_licence), config)
        assert result.identical and result.masked >= 1
    unmasked = BuildConfig(corpus=str(folder), gates=("empty",))
    result = rederive(masked[0], read(folder / "harbour.md", "harbour.md", "unknown"), unmasked)
    assert any("<EMAIL>" in difference for difference in result.differences)


@pytest.mark.parametrize("name", ["letters.jsonl", "letters.jsonl.gz", "letters.parquet"])
def test_records_are_found_in_files_of_many(tmp_path, name):
    path = tmp_path / name
    records = [{"title": f"Letter {n}", "text": f"Käse {n}. {PARAGRAPH.format(f'pilot {n}')}"} for n in range(5)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    config = BuildConfig(corpus=str(path))
    found = derived(path, name, config)
    assert found
    raw = RawFiles(str(path))
    for row in found[-3:]:
        source = row["source"][0]
        raw.verify(source)
        span = raw.spans([source], 2000)[source["path"], source["start"], source["end"]]
        assert span.complete and "Käse" in span.text and span.text.count("The harbour office") == 1
        assert rederive(row, read(path, name, config.document_licence), config).identical


def test_sources_in_tables_of_other_field_names_are_shown(tmp_path):
    """What stands in a Parquet file is no text to cut from its bytes: showing it needs the fields too."""
    path = tmp_path / "letters.parquet"
    records = [{"heading": f"Letter {n}", "words": f"Käse {n}. {PARAGRAPH.format(f'pilot {n}')}"} for n in range(30)]
    pq.write_table(pa.Table.from_pylist(records), path)
    flags = ("--fields", "text=words,title=heading", "--gates", "empty")
    done = cli("build", "--corpus", str(path), "--output", str(tmp_path / "set"), *flags)
    assert done.returncode == 0, done.stderr
    for _, row in rows(tmp_path / "set")[-3:]:
        text, identical = trace(tmp_path / "set", row["id"], str(path))
        assert identical and "│ Käse" in text
    assert cli("inspect", str(tmp_path / "set"), "--corpus", str(path)).returncode == 0
    assert "Käse" in (tmp_path / "set" / "inspect.html").read_text(encoding="utf-8").split('"spans"')[1]


def test_long_spans_are_cut_at_a_whole_character(tmp_path):
    (tmp_path / "long.txt").write_text("ä🦊" * 3000, encoding="utf-8")
    source = {"path": "long.txt", "start": 0, "end": 18_000, "extractor": "utf8/1"}
    (span,) = RawFiles(str(tmp_path)).spans([source], 501).values()
    assert span.text == "ä🦊" * 250 + "ä" and not span.complete
    short = source | {"end": 12}
    assert RawFiles(str(tmp_path)).spans([short], 4)["long.txt", 0, 12] == span.__class__("ä🦊ä🦊", True)


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text(
        f"# A\x1b[31m title of four words\n\n{PARAGRAPH.format('them')}\n\n## End\n\n{PARAGRAPH}\n"
    )
    assert cli("build", "--corpus", str(folder), "--output", str(tmp_path / "set")).returncode == 0
    printed = [trace(tmp_path / "set", row["id"], str(folder)) for _, row in rows(tmp_path / "set")]
    assert printed and all(identical for _, identical in printed)
    assert not any("\x1b" in text for text, _ in printed)
