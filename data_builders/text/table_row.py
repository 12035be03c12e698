"""Table row: one row of a table as `column: cell` lines, or as a JSON object."""

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
            if all(row):
                answer = "\n".join(f"{name}: {cell}" for name, cell in zip(table.header, row, strict=True))
                fields = {
                    "table": FORMATS[rng.choice(("Markdown", "CSV"))](table),
                    "row": row[key],
                    "key": table.header[key],
                }
                yield Example(fields, answer, table.start, table.end)


# Held out together: both write the cells of a table in another form.
FAMILY = Family("table_row", group="conversion", kind="text", mine=mine, extractive=True)
