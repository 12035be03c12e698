"""Table conversion: the same table in another format: JSON or YAML from Markdown or CSV, and back."""

from __future__ import annotations

import random
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn, shuffled
from data_builders.tables import FORMATS, Table, tables
from instructrec.core.segmentation import count_words

MOST_WORDS = 60
"""Words of the table's Markdown; longer answers would crowd out other families'."""


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for table in drawn(tables(document), rng):
        # The first rows alone are a table as well.
        rows = table.rows[: rng.randint(2, 4)]
        table = Table(table.header, rows, table.start, table.end)
        if count_words(FORMATS["Markdown"](table)) <= MOST_WORDS:
            source, target = shuffled([rng.choice(("Markdown", "CSV")), rng.choice(("JSON", "YAML"))], rng)
            fields = {"table": FORMATS[source](table), "source": source, "target": target}
            yield Example(fields, FORMATS[target](table), table.start, table.end)


FAMILY = Family("table_convert", group="conversion", kind="text", mine=mine, extractive=True)
