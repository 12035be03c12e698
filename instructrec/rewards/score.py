"""Scoring a file of responses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from instructrec.core import checks
from instructrec.core.errors import UserError
from instructrec.core.files import read_json_lines
from instructrec.core.schema import INSTRUCTION, SCORED_RESPONSE, check_record
from instructrec.rewards.combined import Rewards

BATCH = 64

_RESPONSE = pa.schema(
    [
        *(SCORED_RESPONSE.field(name) for name in ("prompt", "completion")),
        *(INSTRUCTION.field(name).with_nullable(True) for name in ("id", "language", "targets", "choices", "checks")),
    ]
)
"""What is known of a row; it may have any other key but these, for rewards of a user's own."""

_ARGUMENTS = ("prompts", "completions", "self")


def score_file(path: Path, rewards: Rewards) -> Iterator[tuple[str, dict[str, float | None], float | None]]:
    """Yield each row's id (its place in the file where it has none), its rewards by name, and R.

    Raises:
        UserError: a line is no response (`prompt` and `completion`, texts or messages), or a reward fails.
    """
    rows = [_row(where, record) for where, record in read_json_lines(path)]
    if not rows:
        raise UserError(f"{path}: no responses; give one JSON object per line")
    names = sorted({name for row in rows for name in row} - {"prompt", "completion"})
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        columns = {name: [row.get(name) for row in batch] for name in names}
        found = rewards.each([row["prompt"] for row in batch], [row["completion"] for row in batch], **columns)
        for place, row in enumerate(batch):
            values = {name: column[place] for name, column in found.items()}
            yield row["id"], values, rewards.combine(values)


def _row(where: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object with 'prompt' and 'completion'")
    for key in record:
        if key in _ARGUMENTS:
            raise UserError(f"{where}: a key cannot be called {key!r}, as an argument of every reward is; rename it")
    row = dict(record)
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        if isinstance(row.get(key), str):
            row[key] = [{"role": role, "content": row[key]}]
    check_record({key: value for key, value in row.items() if key in _RESPONSE.names}, _RESPONSE, where)
    if not row["prompt"] or not row["completion"]:
        raise UserError(f"{where}: 'prompt' and 'completion' must be a text or messages, one at least")
    if row.get("checks") is not None:
        checks.validate(row["checks"], where)
    return row | {"id": row.get("id") or where}
