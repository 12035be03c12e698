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
        folder: the instruction set that prompts may be from, told by their last message: their pairs keep the row's
            split and source, and there are none of what test_templates or test_tasks asks. Other prompts go to train
            or, a tenth of them, to validation, by a hash of that message.
        skipped: gets reason → pairs or prompts that make none.

    Raises:
        UserError: a line is no scored response; the message names it.
    """
    with _opened(path) as file:
        places: dict[tuple[int, int], array[int]] = defaultdict(lambda: array("Q"))
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.strip():
                prompt = _record(line, f"{path}:{number}")["prompt"]
                places[_asked(prompt), prompt_key(prompt)].append(offset)
            offset += len(line)
        known = _of_set(folder, {asked for asked, _ in places}) if folder else {}
        for (asked, _), offsets in places.items():
            records = [_at(file, offset) for offset in offsets]
            validation = hashed(seed, "validation", records[0]["prompt"][-1]["content"]) < VALIDATION_SHARE * 2**64
            split, source = known.get(asked, (VALIDATION if validation else TRAIN, []))
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


def _asked(prompt: list[dict[str, str]]) -> int:
    """A number that stands for what was asked last: whatever was said before, prompts that ask the same stay together.

    `load_pairs` refuses pairs by it too.
    """
    return hashed("asked", prompt[-1]["content"])


def _of_set(folder: Path, wanted: set[int]) -> dict[int, tuple[str, Any]]:
    """Split and source of what rows of a set ask: the last split of those that ask it, so that held-out ones win.

    No source is given where rows of several ask the same.
    """
    found: dict[int, tuple[str, Any]] = {}
    for split in SPLITS:
        for row in read_split(folder, split, ["prompt", "source"]):
            if (asked := _asked(row["prompt"])) in wanted:
                source = row["source"]
                found[asked] = (split, source if found.get(asked, (split, source))[1] == source else [])
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
