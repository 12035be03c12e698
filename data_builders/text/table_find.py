"""Table find: the name of the one row that has a given value in a given column."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.tables import FORMATS, tables
from instructrec.core.segmentation import count_words


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for table in drawn(tables(document), rng):
        key = table.key
        if key is None:
            continue
        for row in islice(drawn(table.rows, rng), 3):
            j = rng.choice([j for j in range(len(row)) if j != key])
            value = row[j]
            if not value or table.column(j).count(value) != 1 or count_words(value) > 12 or value == row[key]:
                continue
            if any(c.isalnum() for c in row[key]):
                shown = FORMATS[rng.choice(("Markdown", "CSV", "JSON"))](table)
                fields = {"table": shown, "key": table.header[key], "column": table.header[j], "value": value}
                yield Example(fields, row[key], table.start, table.end)


FAMILY = Family("table_find", group="tables", kind="text", mine=mine, extractive=True)
