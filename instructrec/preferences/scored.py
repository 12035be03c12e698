"""Preference pairs from scored responses: of two responses to a prompt the one with the higher score is chosen.

A mentor's scores are compared with that mentor's only, since two people need not use a scale alike. A pair is made
where every mentor who scored both responses agrees, and one at least sees a difference.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, BinaryIO

from instructrec.core.errors import UserError
from instructrec.core.hashing import hashed
from instructrec.core.schema import SPLITS, TRAIN, VALIDATION, check_scored_response, read_split
from instructrec.preferences.rows import ROW_SPLITS
from instructrec.preferences.write import Pair, pair, prompt_key

VALIDATION_SHARE = 0.1
"""Of prompts that are not a set's."""


def from_scores(path: Path, folder: Path | None, seed: int, skipped: Counter[str]) -> Iterator[tuple[str, Pair]]:
    """(split, pair) of a JSONL file of scored responses, prompt by prompt; only places in the file are held in memory.

    Args:
        folder: the instruction set that prompts may be from: their pairs keep the row's split and source, and there are
            none of prompts that only test_templates or test_tasks has. Other prompts go to train or, a tenth of them,
            to validation, by a hash.
        skipped: gets reason → pairs or prompts that make none.

    Raises:
        UserError: a line is no scored response; the message names it.
    """
    with _opened(path) as file:
        places: dict[int, array[int]] = defaultdict(lambda: array("Q"))
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.strip():
                places[prompt_key(_record(line, f"{path}:{number}")["prompt"])].append(offset)
            offset += len(line)
        known = _of_set(folder, places.keys()) if folder else {}
        for key, offsets in places.items():
            records = [_at(file, offset) for offset in offsets]
            # By what was asked last: conversations that ask the same stay on one side.
            validation = hashed(seed, "validation", records[0]["prompt"][-1]["content"]) < VALIDATION_SHARE * 2**64
            split, source = known.get(key, (VALIDATION if validation else TRAIN, []))
            if split not in ROW_SPLITS:
                skipped["held_out_prompt"] += 1
                continue
            for new in _compared(records, source, skipped):
                yield split, new


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"--mentor {path}: {error.strerror}") from None


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    check_scored_response(record, where)
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: holds half of a surrogate pair; mend its \\ud… escape") from None
    if not record["prompt"] or record["prompt"][-1]["role"] != "user":
        raise UserError(f"{where}: 'prompt' must end with a message of role 'user'")
    if [message["role"] for message in record["completion"]] != ["assistant"]:
        raise UserError(f"{where}: 'completion' must be one message of role 'assistant'")
    return record


def _at(file: BinaryIO, offset: int) -> dict[str, Any]:
    file.seek(offset)
    return json.loads(file.readline())


def _of_set(folder: Path, wanted: Any) -> dict[int, tuple[str, Any]]:
    """Split and source of the prompts that are rows of a set. A prompt of two splits belongs to the later one."""
    found: dict[int, tuple[str, Any]] = {}
    for split in sorted(SPLITS, key=lambda name: (name in ROW_SPLITS, SPLITS.index(name))):
        for row in read_split(folder, split, ["prompt", "source"]):
            if (key := prompt_key(row["prompt"])) in wanted:
                found[key] = (split, row["source"])
    return found


def _compared(records: list[dict[str, Any]], source: Any, skipped: Counter[str]) -> Iterator[Pair]:
    for a, b in combinations(records, 2):
        scores = {name: (a["rewards"][name], b["rewards"].get(name)) for name in sorted(a["rewards"])}
        gaps = {name: x - y for name, (x, y) in scores.items() if x is not None and y is not None and x != y}
        better, worse = (a, b) if sum(gaps.values()) > 0 else (b, a)
        texts = [record["completion"][0]["content"] for record in (better, worse)]
        if not gaps or texts[0].strip() == texts[1].strip():
            skipped["no_difference"] += 1
        elif not all(text.strip() for text in texts):
            skipped["empty_answer"] += 1
        elif min(gaps.values()) < 0 < max(gaps.values()):
            skipped["mentors_disagree"] += 1
        else:
            margin = abs(sum(gaps.values())) / len(gaps)
            yield pair(a["prompt"], texts[0], texts[1], "mentor:" + "+".join(gaps), source, margin)
