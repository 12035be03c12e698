"""Column sum: the total of a column of whole numbers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.tables import FORMATS, has_total, tables

MOST_ROWS = 10

_INTEGER = re.compile(r"0|[1-9]\d{0,5}", re.A)


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for table in drawn(tables(document), rng):
        if len(table.rows) > MOST_ROWS:
            continue
        for j in drawn(range(1, len(table.header)), rng):
            cells = table.column(j)
            # Single digits, the same number in each row, or numbers in sequence are more often codes than quantities.
            numbers = [int(cell) for cell in cells if _INTEGER.fullmatch(cell)]
            if (
                len(numbers) == len(cells)
                and max(numbers) > 9
                and numbers != sorted(numbers)
                and not has_total(numbers)
            ):
                shown = FORMATS[rng.choice(("Markdown", "CSV", "JSON"))](table)
                fields = {"table": shown, "column": table.header[j]}
                yield Example(fields, str(sum(numbers)), table.start, table.end)


# Held out together: all compute over the rows of a table.
FAMILY = Family("column_sum", group="table_arithmetic", kind="text", mine=mine, computed=True)
