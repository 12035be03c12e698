"""Tables, lists, headers and commands of a page, and that what is computed from them is right."""

import csv
import io
import json
import random
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from data_builders.commands import commands
from data_builders.documents import Document, corpus_files, read
from data_builders.families import families
from data_builders.header import header_of
from data_builders.lists import lists
from data_builders.tables import FORMATS, Table, tables

FIXTURES = Path(__file__).parent / "fixtures" / "families"
DOCUMENTS = [document for path, name in corpus_files(str(FIXTURES)) for document in read(path, name, "CC0-1.0")]


def page(content: str, layout: str = "rst") -> Document:
    return Document(content, layout, "page", "page", "0" * 64, 0, len(content.encode()), "utf8/1", "CC0-1.0")


def mined(name: str):
    found = [
        (document, example)
        for document in DOCUMENTS
        for seed in range(5)
        for example in families()[name].mine(document, random.Random(seed))
    ]
    assert found
    return found


def the_table(document: Document, example) -> Table:
    return next(table for table in tables(document) if (table.start, table.end) == (example.start, example.end))


ROWS = [["ant", "six", "2"], ["spider", "eight", "1"], ["crab", "ten", "7"]]
SIMPLE = """\
======  ======  ======
Animal  Legs    Count
======  ======  ======
ant     six     2
spider  eight   1
crab    ten     7
======  ======  ======
"""
GRID = """\
+--------+-------+-------+
| Animal | Legs  | Count |
+========+=======+=======+
| ant    | six   | 2     |
+--------+-------+-------+
| spider | eight | 1     |
+--------+-------+-------+
| crab   | ten   | 7     |
+--------+-------+-------+
"""
LISTED = """\
.. list-table:: Animals
   :header-rows: 1

   * - Animal
     - Legs
     - Count
   * - ant
     - six
     - 2
   * - spider
     - eight
     - 1
   * - crab
     - ten
     - 7
"""


@pytest.mark.parametrize("text", [SIMPLE, GRID, LISTED])
def test_every_kind_of_rst_table_reads_alike(text):
    (table,) = tables(page(f"Some animals stand below.\n\n{text}\nAnd that is all."))
    assert table.header == ("Animal", "Legs", "Count") and [list(row) for row in table.rows] == ROWS
    assert table.key == 0


@pytest.mark.parametrize(
    "text",
    [
        GRID.replace("| ant    | six   |", "| ant and its six |"),  # a cell over two columns
        GRID.replace("=", "-"),  # no header
        SIMPLE.replace("spider  eight", "spider xeight"),  # text between the columns
        SIMPLE.replace("Legs  ", "Animal"),  # two columns of one name
    ],
)
def test_a_table_that_is_not_plain_is_left_out(text):
    assert tables(page(text)) == []


CELL = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@given(st.lists(CELL, min_size=2, max_size=4, unique_by=str.casefold), st.data())
def test_a_table_survives_all_its_formats(header, data):
    row = st.lists(CELL, min_size=len(header), max_size=len(header)).map(tuple)
    table = Table(tuple(header), tuple(data.draw(st.lists(row, min_size=3, max_size=5))), 0, 1)
    (found,) = tables(page(FORMATS["Markdown"](table), "markdown"))
    assert (found.header, found.rows) == (table.header, table.rows)
    assert json.loads(FORMATS["JSON"](table)) == yaml.safe_load(FORMATS["YAML"](table)) == table.records
    assert [tuple(row) for row in csv.reader(io.StringIO(FORMATS["CSV"](table)))] == [table.header, *table.rows]


def test_lists_keep_their_items_and_their_introduction():
    text = "What we need:\n\n* flour that\n  was sifted\n\n* salt\n* water\n\nAfter that, mix."
    (found,) = lists(page(text))
    assert found.items == ("flour that was sifted", "salt", "water") and found.introduction == "What we need:"
    assert text[found.start : found.end].startswith("What") and text[found.start : found.end].endswith("water")


@pytest.mark.parametrize(
    "text",
    [
        "- one\n- two\n  - deeper\n- three",  # nested
        "- one\n- two\n- three\n\n  More about the third item, which belongs to it.",  # not all of the list
        "2. two\n3. three\n4. four",  # goes on from another list
        "- same\n- other\n- Same",  # two items alike
        "- one\n- two",  # too short
    ],
)
def test_a_list_that_is_not_plain_is_left_out(text):
    assert lists(page(text)) == []


def test_a_header_is_all_of_the_first_block_or_nothing():
    found = header_of(page("From: a\nTo: b\nSubject: long\n  and wrapped\n\nDear b"))
    assert found is not None and found.fields == {"From": "a", "To": "b", "Subject": "long and wrapped"}
    assert header_of(page("From: a\nTo: b\nand a line of prose\n\nDear b")) is None


def test_commands_are_paired_with_their_descriptions():
    text = "- List the files:\n\n`ls {{folder}}`\n\n- Without a command:\n\nNothing.\n\n- [c]reate:\n\n`touch x`\n"
    (found,) = commands(page(text, "markdown"))
    assert (found.description, found.command) == ("List the files", "ls folder")


def test_sums_and_counts_are_those_of_the_column():
    for document, example in mined("column_sum"):
        table = the_table(document, example)
        column = table.column(table.header.index(example.fields["column"]))
        assert int(example.answer) == sum(map(int, column))
    for document, example in mined("table_count"):
        table = the_table(document, example)
        column = table.column(table.header.index(example.fields["column"]))
        assert int(example.answer) == column.count(example.fields["value"]) > 1


def test_the_extreme_row_has_the_extreme_number():
    for document, example in mined("column_extreme"):
        table = the_table(document, example)
        j = table.header.index(example.fields["column"])
        numbers = {
            row[table.header.index(example.fields["key"])]: float(row[j].split()[0].rstrip("%")) for row in table.rows
        }
        best = max if example.fields["direction"] == "highest" else min
        assert numbers[example.answer] == best(numbers.values())


def test_list_facts_are_true_of_the_list():
    for _, example in mined("list_count"):
        assert int(example.answer) == example.fields["list"].count("\n") + 1
    for _, example in mined("list_membership"):
        assert (f"- {example.fields['item']}" in example.fields["list"].split("\n")) == (example.answer == "yes")
    for _, example in mined("list_sort"):
        given_items = [line[2:] for line in example.fields["list"].split("\n")]
        assert example.answer.split("\n") == sorted(given_items, key=str.casefold) != given_items


def test_ordered_steps_are_those_of_the_page():
    for document, example in mined("step_order"):
        shown = [line.split(". ", 1)[1] for line in example.fields["steps"].split("\n")]
        restored = [shown[int(number) - 1] for number in example.answer.split(", ")]
        assert any(found.items[: len(shown)] == tuple(restored) != tuple(shown) for found in lists(document))


def test_matched_headings_stand_above_their_excerpts():
    for document, example in mined("heading_match"):
        headings = [line.split(". ", 1)[1] for line in example.fields["headings"].split("\n")]
        excerpts = dict(part[1:].split(") ", 1) for part in example.fields["excerpts"].split("\n\n"))
        for pair in example.answer.split(", "):
            number, letter = pair.split("-")
            section = next(s for s in document.sections if s.heading and s.heading.text == headings[int(number) - 1])
            assert section.body[0].text == excerpts[letter]


def test_the_odd_sentence_comes_from_elsewhere():
    for document, example in mined("odd_sentence_out"):
        holders = [s for s in document.sections if any(example.answer in block.text for block in s.paragraphs)]
        assert example.options is not None
        mates = [s for s in example.options if s != example.answer]
        assert not any(all(any(m in b.text for b in s.paragraphs) for m in mates) for s in holders)
