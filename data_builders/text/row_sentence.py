"""Row sentence: a row of a table as a sentence, built like the sentence that is given for another row."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import islice

from data_builders.documents import Document
from data_builders.families import Example, Family, drawn
from data_builders.tables import FORMATS, tables

# Grammatical whatever the columns are called.
_FRAMES = (
    ("In the row of {row}, {cells}.", "{name} is {cell}"),
    ("For {row} the table has {cells}.", '{cell} under "{name}"'),
    ("The row with {key} {row} holds {cells}.", "{cell} in the column {name}"),
)
# Sentences of their own, links, emphasis, escapes, and cells that were joined with others.
_NOT_A_PHRASE = re.compile(r"[.!?:]$|[.!?] |---|\w_+(?!\w)|`_|\*\*|\\")


def _cells(row: tuple[str, ...], key: int) -> tuple[str, ...]:
    return row[:key] + row[key + 1 :]


def _sentence(frame: tuple[str, str], header: tuple[str, ...], row: tuple[str, ...], key: int) -> str:
    whole, part = frame
    named = [part.format(name=header[j], cell=cell) for j, cell in enumerate(row) if j != key]
    cells = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    return whole.format(key=header[key], row=row[key], cells=cells)


def mine(document: Document, rng: random.Random) -> Iterator[Example]:
    for table in drawn(tables(document), rng):
        key = table.key
        rows = [row for row in table.rows if all(cell and not _NOT_A_PHRASE.search(cell) for cell in row)]
        if key is None or len(rows) < 2:
            continue
        model = rng.choice(rows)
        others = (row for row in drawn(rows, rng) if _cells(row, key) != _cells(model, key))
        for row in islice(others, 2):
            frame = rng.choice(_FRAMES)
            fields = {
                "table": FORMATS[rng.choice(("Markdown", "CSV"))](table),
                "row": row[key],
                "key": table.header[key],
                "other": model[key],
                "model": _sentence(frame, table.header, model, key),
            }
            yield Example(fields, _sentence(frame, table.header, row, key), table.start, table.end)


# As `table_row`, in a sentence.
FAMILY = Family("row_sentence", group="conversion", kind="text", mine=mine, computed=True)
