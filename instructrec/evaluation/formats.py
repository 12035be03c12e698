"""Evaluation sets as others publish them → suite items: BIG-Bench Hard and Super-NaturalInstructions tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError

MOST_LABELS = 5
"""A task without written options whose answers are so few different ones is a choice among them."""
LEAST_ITEMS_PER_LABEL = 10

_LETTERED = re.compile(r"^\(([A-Z])\) ", re.M)
_LISTED = re.compile(r"^- (.+)$", re.M)


def read_task(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the items of a JSON task file in the form of a suite's JSONL.

    - BIG-Bench Hard (Suzgun et al., 2022): `{"examples": [{"input", "target"}]}`; options are read from the input.
    - Super-NaturalInstructions (Wang et al., 2022): `{"Definition", "Instances": [{"input", "output"}], "Categories"}`.

    Raises:
        UserError: naming the file, and the item that is malformed.
    """
    try:
        task = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON task file ({error})") from None
    if isinstance(task, dict) and isinstance(task.get("examples"), list):
        items = _bbh(path, task["examples"])
    elif isinstance(task, dict) and isinstance(task.get("Instances"), list):
        items = _super_ni(path, task)
    else:
        raise UserError(f"{path}: neither a BIG-Bench Hard nor a Super-NaturalInstructions task; see `read_task`")
    empty = True
    for item in items:
        empty = False
        yield item
    if empty:
        raise UserError(f"{path}: the task has no items")


def _texts(path: Path, number: int, entry: Any, *keys: str) -> list[str]:
    """The non-empty strings under `keys`."""
    values = [entry.get(key) if isinstance(entry, dict) else None for key in keys]
    for key, value in zip(keys, values, strict=True):
        if not isinstance(value, str) or not value.strip():
            raise UserError(f"{path}: item {number}: {key!r} must be a text that is not empty")
    return [str(value) for value in values]


def _bbh(path: Path, examples: list[Any]) -> Iterator[dict[str, Any]]:
    pairs = [_texts(path, number, example, "input", "target") for number, example in enumerate(examples)]
    labels = sorted({target.strip() for _, target in pairs})
    few = 1 < len(labels) <= MOST_LABELS and len(pairs) >= LEAST_ITEMS_PER_LABEL * len(labels)
    for number, (text, target) in enumerate(pairs):
        choices: list[str] | None = written_options(text) or (labels if few else None)
        yield {
            "id": f"{path.stem}-{number}",
            "category": path.stem,
            "instruction": text,
            "input": "",
            "targets": [target.strip()],
            "choices": choices if choices and target.strip() in choices else None,
            "checks": None,
        }


def written_options(text: str) -> list[str]:
    """The options that stand below `Options:`: letters in brackets, or the texts of a list."""
    _, found, below = text.partition("Options:\n")
    if not found:
        return []
    letters = [f"({letter})" for letter in _LETTERED.findall(below)]
    return letters or [option.strip() for option in _LISTED.findall(below)]


def _super_ni(path: Path, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    definition = task.get("Definition")
    definition = definition[0] if isinstance(definition, list) and definition else definition
    (instruction,) = _texts(path, 0, {"Definition": definition}, "Definition")
    category = (task.get("Categories") or [path.stem])[0]
    for number, instance in enumerate(task["Instances"]):
        (text,) = _texts(path, number, instance, "input")
        outputs = instance.get("output")
        outputs = [outputs] if isinstance(outputs, str) else outputs
        if not isinstance(outputs, list) or not outputs or not all(isinstance(o, str) and o.strip() for o in outputs):
            raise UserError(f"{path}: item {number}: 'output' must be one or more texts that are not empty")
        yield {
            "id": str(instance.get("id") or f"{path.stem}-{number}"),
            "category": str(category),
            "instruction": instruction,
            "input": text,
            "targets": outputs,
            "choices": None,
            "checks": None,
        }
