"""Table column: all cells of one column from top to bottom."""

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
        for j in islice(drawn(range(len(table.header)), rng), 2):
            cells = table.column(j)
            # A semicolon parts the cells in some wordings.
            if all(cells) and ";" not in "".join(cells) and sum(map(count_words, cells)) <= 40:
                shown = FORMATS[rng.choice(("Markdown", "CSV", "JSON"))](table)
                fields = {"table": shown, "column": table.header[j]}
                yield Example(fields, "\n".join(cells), table.start, table.end)


FAMILY = Family("table_column", group="tables", kind="text", mine=mine, extractive=True)
