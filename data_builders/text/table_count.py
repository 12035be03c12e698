"""Table count: how many rows have a given value in a given column."""

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
        for j in islice(drawn(range(len(table.header)), rng), 3):
            cells = table.column(j)
            folded = [cell.casefold() for cell in cells]
            # Cells that repeat, so that not every answer is one.
            repeated = sorted({cell for cell in folded if cell and folded.count(cell) > 1})
            if not repeated or len(set(folded)) == 1:
                continue
            value = cells[folded.index(rng.choice(repeated))]
            # A value that is part of another cell could be counted there as well.
            within = sum(value.casefold() in cell for cell in folded)
            if within == folded.count(value.casefold()) and count_words(value) <= 6:
                shown = FORMATS[rng.choice(("Markdown", "CSV", "JSON"))](table)
                fields = {"table": shown, "column": table.header[j], "value": value}
                yield Example(fields, str(within), table.start, table.end)


FAMILY = Family("table_count", group="table_arithmetic", kind="text", mine=mine, computed=True)
