"""Tables of a page: Markdown pipes, reStructuredText grids, simple and list tables, and what HTML readers give."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import yaml

from data_builders.documents import Document
from data_builders.layout import Block
from instructrec.core.segmentation import count_words, unwrap

MOST_COLUMNS, LEAST_ROWS, MOST_ROWS = 6, 3, 12
MOST_TABLE_WORDS = 130

_RULE = re.compile(r"[\s|:]*-[-\s|:]*$")
_CELL = re.compile(r"[|\n\t]|::$|<[a-zA-Z/]|\[\d+\]_")
_LIST_TABLE = re.compile(r"\.\. list-table::.*\n(?:.*\n)*?\s+:header-rows: 1\s*(?:\n|$)")


@dataclass(frozen=True)
class Table:
    """A table with one header row and no spans; `start`/`end` are characters of the content."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    start: int
    end: int

    @cached_property
    def key(self) -> int | None:
        """The first column whose cells name their rows: short, filled, distinct, and in no other column."""
        folded = [[cell.casefold() for cell in self.column(j)] for j in range(len(self.header))]
        for j, cells in enumerate(folded):
            others = {cell for column in folded for cell in column if column is not cells}
            if len({*cells} - others) == len(cells) and all(cell and count_words(cell) <= 8 for cell in cells):
                return j
        return None

    def column(self, j: int) -> list[str]:
        return [row[j] for row in self.rows]

    @property
    def records(self) -> list[dict[str, str]]:
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]


def has_total(numbers: Sequence[float]) -> bool:
    """Whether the largest of the numbers is about the sum of the others, as in a column that ends in its total."""
    largest = max(numbers)
    return abs(2 * largest - sum(numbers)) <= abs(largest) / 50


def as_markdown(table: Table) -> str:
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_csv(table: Table) -> str:
    """Comma-separated, every field in quotes."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([table.header, *table.rows])
    return text.getvalue().rstrip("\n")


def as_json(table: Table) -> str:
    """A list of objects, one a line."""
    lines = [json.dumps(record, ensure_ascii=False) for record in table.records]
    return "[" + ",\n ".join(lines) + "]"


def as_yaml(table: Table) -> str:
    return yaml.safe_dump(table.records, allow_unicode=True, sort_keys=False, width=10_000).rstrip("\n")


FORMATS: dict[str, Callable[[Table], str]] = {
    "Markdown": as_markdown,
    "CSV": as_csv,
    "JSON": as_json,
    "YAML": as_yaml,
}


@lru_cache(maxsize=1)
def tables(document: Document) -> list[Table]:
    """The tables of a document small enough to be shown whole."""
    return list(_tables(document))


def _tables(document: Document) -> Iterator[Table]:
    before: Block | None = None
    for block in document.blocks:
        lines: list[list[str]] | None = None
        start = block.start
        if block.kind == "table":
            lines = _parse(block.text, document.layout)
        elif block.kind == "list" and before is not None and _LIST_TABLE.match(before.text):
            lines, start = _list_table(block.text), before.start
        before = block
        if lines and _is_usable(lines):
            yield Table(tuple(lines[0]), tuple(map(tuple, lines[1:])), start, block.end)


def _parse(text: str, layout: str) -> list[list[str]] | None:
    """The header and the rows; null for what is no such table."""
    if layout == "html":
        return [line.split(" | ") for line in text.split("\n")]
    lines = [line.rstrip() for line in textwrap.dedent(text).split("\n")]
    if lines[0].startswith("|"):
        return _pipes(lines)
    return _grid(lines) if lines[0].startswith("+") else _simple(lines)


def _pipes(lines: list[str]) -> list[list[str]] | None:
    if len(lines) < 3 or not _RULE.match(lines[1]) or not all(line.startswith("|") for line in lines):
        return None
    found = [line.strip("|").split("|") if line.endswith("|") else line[1:].split("|") for line in lines]
    return [[cell.strip() for cell in row] for i, row in enumerate(found) if i != 1]


def _grid(lines: list[str]) -> list[list[str]] | None:
    places = [i for i, c in enumerate(lines[0]) if c == "+"]
    rows: list[list[str]] = []
    held: list[str] = []
    heads = []
    for line in lines:
        if len(line) != len(lines[0]) or any(line[i] not in "+|" for i in places):
            return None
        if not line.startswith("+"):
            held.append(line)
            continue
        if any(line[i] != "+" for i in places):
            return None
        if "=" in line:
            heads.append(len(rows) + 1)
        if held:
            cells = [[one[a + 1 : b].strip() for one in held] for a, b in pairwise(places)]
            rows.append([unwrap("\n".join(cell)).strip() for cell in cells])
            held = []
    return rows if heads == [1] and not held else None


def _simple(lines: list[str]) -> list[list[str]] | None:
    spans = [match.span() for match in re.finditer("=+", lines[0])]
    if [i for i, line in enumerate(lines) if line.startswith("==")] != [0, 2, len(lines) - 1] or len(lines) < 5:
        return None
    rows: list[list[str]] = []
    starts = [start for start, _ in spans]
    for line in (lines[1], *lines[3:-1]):
        gaps = (line[end:start] for (_, end), start in zip(spans, starts[1:], strict=False))
        if any(map(str.strip, gaps)) or line.startswith("--"):
            return None
        cells = [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        if cells[0] or len(rows) < 2:
            rows.append(cells)
        else:  # a line whose first column is empty goes on with the row above
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
    return rows


def _list_table(text: str) -> list[list[str]] | None:
    rows = re.split(r"^\* - ", textwrap.dedent(text), flags=re.M)
    if rows[0].strip():
        return None
    return [[unwrap(cell).strip() for cell in re.split(r"^  - ?", row, flags=re.M)] for row in rows[1:]]


def _is_usable(lines: list[list[str]]) -> bool:
    header = lines[0]
    return (
        2 <= len(header) <= MOST_COLUMNS
        and LEAST_ROWS <= len(lines) - 1 <= MOST_ROWS
        and all(len(line) == len(header) for line in lines)
        and len({name.casefold() for name in header}) == len(header)
        and all(name and ":" not in name and count_words(name) <= 6 for name in header)
        and all(any(c.isalnum() for c in name) for name in header)
        and not any(_CELL.search(cell) or cell.startswith(("- ", "* ")) for line in lines for cell in line)
        and sum(count_words(cell) for line in lines for cell in line) <= MOST_TABLE_WORDS
    )
