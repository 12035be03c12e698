"""Preference pairs → what TRL's preference trainers take; refuses pairs that overlap with what is held out."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructrec.core.errors import UserError
from instructrec.core.schema import (
    HELD_OUT,
    PAIR,
    PAIR_SPLITS,
    SIDES,
    TEST_CORRUPTORS,
    TRAIN,
    VALIDATION,
    read_manifest,
    read_split,
)
from instructrec.core.spans import Spans
from instructrec.data import QUICKSTART_SET, ensure_set, load_set
from instructrec.launch import strategy_here
from instructrec.lineage import read_lineage
from instructrec.preferences.read import UNSEEN, drawn, read_pairs, unchanged

if TYPE_CHECKING:
    from datasets import Dataset

QUICKSTART_PAIRS = "outputs/quickstart/pairs"


@dataclass
class PairsArguments:
    """What to train on, and what is looked at meanwhile and afterwards."""

    dataset_name: str = field(
        default=QUICKSTART_PAIRS, metadata={"help": "Folder of preference pairs (`instructrec pairs`)."}
    )
    held_out_set: str = field(
        default=QUICKSTART_SET,
        metadata={"help": "Instruction set whose validation rows are asked during training; none is trained on."},
    )
    max_train_rows: int | None = field(
        default=None, metadata={"help": "Train on that many pairs, chosen by a hash of their names; default: all."}
    )
    ranked_pairs: int = field(
        default=200, metadata={"help": "Pairs of each unseen split that are ranked after training; 0 ranks none."}
    )


@dataclass(frozen=True)
class Pairs:
    """A folder of pairs, and the instruction set that training on them is watched with.

    Attributes:
        name, held_out_set: the two folders.
        fingerprint: of the pairs' Parquet.
        rows: of each split, with a column `name` that tells file and row.
        instructions: the validation rows of the instruction set.
    """

    name: str
    held_out_set: str
    fingerprint: str
    rows: dict[str, Dataset]
    instructions: Dataset

    def drawn(self, split: str, most: int) -> Dataset:
        """At most so many pairs of a split, those that it is ranked by (`read.drawn`)."""
        rows = self.rows[split]
        places = {name: place for place, name in enumerate(rows["name"])}
        return rows.select([places[pair["name"]] for pair in drawn(rows.select_columns("name"), most)])

    def unseen(self, most: int) -> dict[str, list[dict[str, Any]]]:
        """At most so many pairs of each unseen split that has any; none where weights are sharded.

        There no process could rank alone.
        """
        if strategy_here() in ("fsdp", "zero"):
            return {}
        return {split: pairs for split in UNSEEN if (pairs := drawn(self.rows[split], most))}

    def to_evaluate(self, most: int, tokenizer: Any, args: Any) -> Dataset | None:
        """Validation pairs as a trainer takes them, at most so many and none too long; null if it evaluates nothing.

        Raises:
            UserError: there are none.
        """
        from instructrec.preflight import tokens_of_pairs

        if args.eval_strategy == "no":
            return None
        rows = self.drawn(VALIDATION, most)
        longest = [max(len(ids) for ids, _ in sides) for sides in tokens_of_pairs(rows, tokenizer)]
        rows = rows.select([i for i, n in enumerate(longest) if args.max_length is None or n <= args.max_length])
        if not len(rows):
            raise UserError(
                f"{self.name}: there are no validation pairs to evaluate on; set --eval_items, make pairs from more "
                "documents, or set --eval_strategy no"
            )
        return rows.select_columns(["prompt", *SIDES])

    def inputs(self) -> dict[str, Any]:
        """What a lineage says of them."""
        watched = Path(self.held_out_set)
        return {
            "pairs": {
                "name": self.name,
                "fingerprint": self.fingerprint,
                "splits": {split: len(rows) for split, rows in self.rows.items()},
                "lineage": read_lineage(Path(self.name)),
            },
            "held_out_set": {"name": self.held_out_set, "fingerprint": read_manifest(watched)["fingerprint"]},
        }


def load_pairs(data: PairsArguments) -> Pairs:
    """The pairs of a config, after their contract was checked.

    Raises:
        UserError: no such folder, files that are not those of its manifest, a pair that breaks the contract, or a
            training pair that shares a prompt, a document or a kind of fault with what is held out.
    """
    import datasets
    from accelerate import PartialState

    folder = Path(data.dataset_name)
    manifest = unchanged(folder)
    read = {split: list(read_pairs(folder, split)) for split in PAIR_SPLITS}
    if not read[TRAIN]:
        raise UserError(f"{folder}: the train split is empty; make pairs from more rows")
    watched = ensure_set(data.held_out_set)
    _check_hold_out(folder, read, watched)
    there = read_manifest(watched)["fingerprint"]
    if manifest["plan"].get("fingerprint", there) != there:
        PartialState().print(
            f"warning: the pairs of {folder} were made from another set ({manifest['plan']['set']}) than the one that "
            f"training is watched with; --held_out_set names {data.held_out_set}",
            file=sys.stderr,
        )
    instructions = load_set(data.held_out_set)[VALIDATION]
    columns = datasets.Features({**datasets.Features.from_arrow_schema(PAIR), "name": datasets.Value("string")})
    rows = {
        split: datasets.Dataset.from_dict({key: [pair[key] for pair in pairs] for key in columns}, features=columns)
        for split, pairs in read.items()
    }
    found = Pairs(data.dataset_name, data.held_out_set, manifest["fingerprint"], rows, instructions)
    if data.max_train_rows is not None:
        rows[TRAIN] = found.drawn(TRAIN, data.max_train_rows)
    return found


def _check_hold_out(folder: Path, read: dict[str, list[dict[str, Any]]], watched: Path) -> None:
    """Refuse training pairs that share something with a held-out pair, or with a held-out row of an instruction set."""
    prompts: dict[str, str] = {}
    spans = Spans()
    held_out = [(pair, f"the pair {pair['name']}") for split in (VALIDATION, *UNSEEN) for pair in read[split]]
    held_out += [
        (row, f"{watched / split} row {row['id']}")
        for split in (VALIDATION, *HELD_OUT)
        for row in read_split(watched, split, ["id", "prompt", "source"])
    ]
    for row, name in held_out:
        prompts[row["prompt"][-1]["content"]] = name
        for source in row["source"]:
            spans.add(source["sha256"], source["start"], source["end"], name)
    unseen = {pair["origin"] for pair in read[TEST_CORRUPTORS]}
    for pair in read[TRAIN]:
        other = prompts.get(pair["prompt"][-1]["content"])
        for source in pair["source"]:
            other = other or spans.overlapping(source["sha256"], source["start"], source["end"])
        if pair["origin"] in unseen:
            other = f"{TEST_CORRUPTORS}, which has pairs of {pair['origin']!r} too"
        if other:
            raise UserError(
                f"{folder}: training pair {pair['name']} overlaps with {other}; such pairs cannot measure what was "
                "learnt. Make them again from the training rows of the set"
            )
