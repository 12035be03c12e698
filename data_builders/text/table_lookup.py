"""Table lookup: the cell of a named row and a named column."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.tables import FORMATS, tables


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for table in drawn(tables(document), rng):
        key = table.key
        if key is None:
            continue
        for row in islice(drawn(table.rows, rng), 3):
            j = rng.choice([j for j in range(len(row)) if j != key])
            if any(c.isalnum() for c in row[j]) and "://" not in row[j]:
                shown = FORMATS[rng.choice(("Markdown", "CSV", "JSON"))](table)
                fields = {"table": shown, "row": row[key], "key": table.header[key], "column": table.header[j]}
                yield Example(fields, row[j], table.start, table.end)


# Held out together: all find a place in a table and copy what stands there.
FAMILY = Family("table_lookup", group="tables", kind="text", mine=mine, extractive=True)
