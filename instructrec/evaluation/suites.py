"""Suites: what a model is asked. A rung of an instruction set, JSONL in the contract's form, published task files."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.core.schema import HELD_OUT, SPLITS, TRAIN, read_manifest, read_split, read_suite
from instructrec.evaluation.formats import read_task

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


def with_shots(items: list[Item], shots: int) -> list[Item]:
    """The items with `shots` other items of their category, question and answer, as turns before their own.

    The others are those that follow an item in its category, cyclically: every item is shown about as often as any.

    Raises:
        UserError: a category has too few items.
    """
    members: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        members[item.category].append(item)
    place: Counter[str] = Counter()
    shown = []
    for item in items:
        others, first = members[item.category], place[item.category] + 1
        place[item.category] = first
        if len(others) <= shots:
            raise UserError(f"--shots {shots}: category {item.category!r} has only {len(others)} items; give fewer")
        turns = [
            turn
            for other in (others[(first + i) % len(others)] for i in range(shots))
            for turn in (*other.messages, {"role": "assistant", "content": other.targets[0]})
        ]
        shown.append(replace(item, messages=(*turns, *item.messages)))
    return shown


def _tasks(paths: list[Path]) -> list[Item]:
    """The items of task files: the first of each, then the second of each, so that a sample has all of them."""
    tasks = [[_from_suite(item) for item in read_task(path)] for path in paths]
    return [item for row in zip_longest(*tasks) for item in row if item is not None]


def load_suites(names: list[str], max_items: int, shots: int = 0) -> dict[str, list[Item]]:
    """Read the suites that `--suite` names, `max_items` items of each at most (0: all), after `shots` examples each.

    A set's folder gives its four rungs, a split's folder that split, a JSONL file its items, and a JSON file or a
    folder of them the items of those tasks (see `formats.read_task`). A sample of a set is drawn by row id, which is a
    hash, so it is the same everywhere.

    Raises:
        UserError: nothing readable under that name, an item that breaks the contract (file and line named), or too few
            items for the examples.
    """
    suites: dict[str, list[Item]] = {}

    def add(name: str, items: list[Item]) -> None:
        if name in suites:
            raise UserError(f"--suite: two suites are called {name!r}; score them in two runs")
        items = with_shots(items, shots) if shots else items
        suites[name] = items[:max_items] if max_items else items

    for name in names:
        path = Path(name)
        if path.suffix == ".jsonl":
            add(path.stem, [_from_suite(item) for item in read_suite(path)])
            continue
        tasks = [path] if path.suffix == ".json" else sorted(path.glob("*.json"))
        if tasks and not (path / "manifest.json").exists():
            add(path.stem, _tasks(tasks))
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
