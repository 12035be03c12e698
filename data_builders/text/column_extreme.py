"""Column extreme: which row has the highest or the lowest number in a column."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.tables import FORMATS, has_total, tables

# Two dots make a version, a leading zero an identifier; a comma is ambiguous between languages.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?: ?[a-zA-Zµ%]{1,3})?", re.A)
_UNIT = re.compile(r"[^-\d.]*$")


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for table in drawn(tables(document), rng):
        key = table.key
        if key is None:
            continue
        for j in drawn([j for j in range(len(table.header)) if j != key], rng):
            cells = table.column(j)
            if not all(map(_NUMBER.fullmatch, cells)) or len({_UNIT.search(cell)[0] for cell in cells}) > 1:  # type: ignore[index]
                continue
            numbers = [float(_UNIT.sub("", cell)) for cell in cells]
            direction, extreme = rng.choice((("highest", max(numbers)), ("lowest", min(numbers))))
            name = table.rows[numbers.index(extreme)][key]
            if numbers.count(extreme) == 1 and not has_total(numbers) and any(c.isalnum() for c in name):
                fields = {
                    "table": FORMATS[rng.choice(("Markdown", "CSV", "JSON"))](table),
                    "key": table.header[key],
                    "column": table.header[j],
                    "direction": direction,
                }
                yield Example(fields, name, table.start, table.end)


FAMILY = Family("column_extreme", group="table_arithmetic", kind="text", mine=mine, extractive=True)
