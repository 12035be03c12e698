"""Suites: what a model is asked. A rung of an instruction set, JSONL in the contract's form, published task files."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.core.schema import HELD_OUT, SPLITS, TRAIN, read_manifest, read_split
from instructrec.evaluation.formats import HUB_ID, item_files, read_hub, read_items

RUNGS = (TRAIN, *HELD_OUT)
"""The generalization ladder: a train sample, unseen documents, unseen wordings, unseen kinds of task."""


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        messages: what the model is told; empty for raw text, whose likelihood alone is scored.
        targets: accepted answers, of which the first is the gold one; empty where only checks tell right from wrong.
        choices: the options, or null.
        checks: JSON of the constraints that an answer must meet (see `core.checks`), or null.
        template: the wording of the instruction, where it has several.
    """

    id: str
    category: str
    messages: tuple[dict[str, str], ...]
    targets: tuple[str, ...]
    choices: tuple[str, ...] | None
    checks: str | None = None
    template: str | None = None


def from_row(row: dict[str, Any]) -> Item:
    """The item that a row of an instruction set asks."""
    choices = tuple(row["choices"]) if row["choices"] else None
    prompt, targets = tuple(row["prompt"]), tuple(row["targets"])
    return Item(row["id"], row["family"], prompt, targets, choices, row["checks"], row["template"])


def with_shots(items: list[Item], shots: int) -> list[Item]:
    """The items with `shots` other items of their category, question and answer, as turns before their own.

    The others are those that follow an item in its category, cyclically: every item is shown about as often as any.

    Raises:
        UserError: a category has too few items, or items without a question or an answer to show.
    """
    members: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if not item.messages or not item.targets:
            raise UserError(f"--shots {shots}: item {item.id} has no question and answer to show; give --shots 0")
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


def _from_files(paths: list[Path]) -> list[Item]:
    """The items of files: the first of each, then the second of each, so that a sample has all of them."""
    files = [[Item(**fields) for fields in read_items(path)] for path in paths]
    return [item for row in zip_longest(*files) for item in row if item is not None]


def load_suites(names: list[str], max_items: int, shots: int = 0) -> dict[str, list[Item]]:
    """Read the suites that `--suite` names, `max_items` items of each at most (0: all), after `shots` examples each.

    A set's folder gives its four rungs, a split's folder that split, and a file, or a folder of tasks or of raw text,
    its items (see `formats.read_items`). `user/dataset` that is no path is read from the Hub. A sample of a set is
    drawn by row id, which is a hash, so it is the same everywhere. Every item is asked alone: of a conversation only
    the first turn is one.

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
        if files := item_files(path):
            add(path.stem, _from_files(files))
            continue
        if HUB_ID.fullmatch(name) and not path.exists():
            add(path.name, [Item(**fields) for fields in read_hub(name)])
            continue
        whole_set = path.name not in SPLITS
        folder, splits = (path, RUNGS) if whole_set else (path.parent, (path.name,))
        read_manifest(folder)
        for split in splits:
            items = sorted(
                (from_row(row) for row in read_split(folder, split) if not row["turn"]), key=lambda item: item.id
            )
            if items:
                add(split, items)
            elif not whole_set:
                raise UserError(f"--suite {name}: the split holds no rows")
    return suites
