"""Suites: what a model is asked. A rung of an instruction set, or JSONL in the contract's form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.core.schema import HELD_OUT, SPLITS, TRAIN, read_manifest, read_split, read_suite

RUNGS = (TRAIN, *HELD_OUT)
"""The generalization ladder: a train sample, unseen documents, unseen wordings, unseen kinds of task."""


@dataclass(frozen=True)
class Item:
    """One question. `targets[0]` is the gold answer, `choices` the options or null."""

    id: str
    category: str
    messages: tuple[dict[str, str], ...]
    targets: tuple[str, ...]
    choices: tuple[str, ...] | None


def _from_row(row: dict[str, Any]) -> Item:
    choices = tuple(row["choices"]) if row["choices"] else None
    return Item(row["id"], row["family"], tuple(row["prompt"]), tuple(row["targets"]), choices)


def _from_suite(item: dict[str, Any]) -> Item:
    content = "\n\n".join(part for part in (item["instruction"], item["input"]) if part.strip())
    choices = tuple(item["choices"]) if item.get("choices") else None
    message = {"role": "user", "content": content}
    return Item(item["id"], item["category"], (message,), tuple(item["targets"]), choices)


def load_suites(names: list[str], max_items: int) -> dict[str, list[Item]]:
    """Read the suites that `--suite` names, `max_items` items of each at most (0: all).

    A set's folder gives its four rungs, a split's folder that split, a JSONL file its items. A sample of a set is drawn
    by row id, which is a hash, so it is the same everywhere.

    Raises:
        UserError: nothing readable under that name, or an item that breaks the contract (file and line named).
    """
    suites: dict[str, list[Item]] = {}

    def add(name: str, items: list[Item]) -> None:
        if name in suites:
            raise UserError(f"--suite: two suites are called {name!r}; score them in two runs")
        suites[name] = items[:max_items] if max_items else items

    for name in names:
        path = Path(name)
        if path.suffix == ".jsonl":
            add(path.stem, [_from_suite(item) for item in read_suite(path)])
            continue
        whole_set = path.name not in SPLITS
        folder, splits = (path, RUNGS) if whole_set else (path.parent, (path.name,))
        read_manifest(folder)
        for split in splits:
            items = sorted((_from_row(row) for row in read_split(folder, split)), key=lambda item: item.id)
            if items:
                add(split, items)
            elif not whole_set:
                raise UserError(f"--suite {name}: the split holds no rows")
    return suites
