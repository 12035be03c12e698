"""How well pairs are ranked without learning from them: by length alone, and by a reference model's likelihood.

What a preference model is worth is what it has above these two. An accuracy counts a tie as half.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from instructrec.core.errors import UserError
from instructrec.core.hashing import hashed
from instructrec.core.schema import PAIR_SPLITS, Estimate
from instructrec.evaluation.statistics import accuracy_of
from instructrec.evaluation.suites import Item
from instructrec.preferences import BATCH, prompt_key

Cell = tuple[str, str]
"""Split and origin; the origin `all` stands for all of a split."""

LONGER, TOKENS, MEAN, SUM = "longer", "more_tokens", "reference_mean", "reference_sum"
"""Rankings: the answer of more characters is better; of more of the reference's tokens; the one whose tokens are
likelier on average; in sum."""


@dataclass
class Ranked:
    """Wins, ties and losses of a ranking on some pairs."""

    counts: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, difference: float) -> None:
        """Count a pair by the sign of the chosen answer's score less the rejected one's."""
        self.counts[1 - (difference > 0) + (difference < 0)] += 1

    def estimate(self) -> Estimate:
        return accuracy_of(*self.counts)


Rankings = dict[str, dict[Cell, Ranked]]


def read_pairs(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """The pairs of one split, in file order."""
    for path in sorted((folder / split).glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(BATCH):
            yield from batch.to_pylist()


def rank_by_length(folder: Path) -> dict[Cell, Ranked]:
    """Longer is better; that shorter is better is right where this is wrong."""
    found: dict[Cell, Ranked] = defaultdict(Ranked)
    for split in PAIR_SPLITS:
        for one in read_pairs(folder, split):
            difference = len(one["chosen"][-1]["content"]) - len(one["rejected"][-1]["content"])
            for origin in (one["origin"], "all"):
                found[split, origin].add(difference)
    return dict(found)


def sample_items(folder: Path, most: int, seed: int) -> dict[str, list[Item]]:
    """Up to `most` pairs of each split and origin as choices between two answers, chosen by a hash."""
    items: dict[str, list[Item]] = {}
    for split in PAIR_SPLITS:
        drawn: dict[str, list[tuple[int, int, Item]]] = defaultdict(list)
        for number, one in enumerate(read_pairs(folder, split)):
            answers = tuple(one[key][-1]["content"] for key in ("chosen", "rejected"))
            rank = -hashed(seed, "reference", one["origin"], prompt_key(one["prompt"]), *answers)
            heap = drawn[one["origin"]]
            if len(heap) < most or rank > heap[0][0]:
                item = Item(f"{split}-{number}", one["origin"], tuple(one["prompt"]), answers[:1], answers)
                (heapq.heappush if len(heap) < most else heapq.heapreplace)(heap, (rank, number, item))
        items[split] = [item for origin in sorted(drawn) for *_, item in sorted(drawn[origin], key=lambda e: e[1])]
    return items


def rank_by_reference(items: dict[str, list[Item]], scorer: Any, done: Callable[[int], None]) -> tuple[Rankings, int]:
    """Rank by the log-likelihood of the answers, per token and summed, and by how many tokens they are.

    Args:
        items: by split, as `sample_items` gives them.
        scorer: `evaluation.scoring.Scorer` of the reference.
        done: called with a number of pairs whenever so many more are ranked.

    Returns:
        The rankings, and how many pairs did not fit the model's context.
    """
    found: Rankings = {name: defaultdict(Ranked) for name in (TOKENS, MEAN, SUM)}
    left_out = 0

    def tokens(text: str) -> int:
        return len(scorer.tokenizer(text, add_special_tokens=False)["input_ids"])

    for split, all_items in items.items():
        sizes = {item.id: [tokens(text) for text in item.choices or ()] for item in all_items}
        fits = [
            item
            for item in all_items
            if not scorer.context or tokens(scorer.render(item)) + max(sizes[item.id]) <= scorer.context
        ]
        left_out += len(all_items) - len(fits)
        for batch in scorer.batches(fits, [0] * len(fits)):
            for place, answered in batch:
                item, (chosen, rejected) = fits[place], answered.choice_logprobs
                lengths = sizes[item.id]
                for origin in (item.category, "all"):
                    found[TOKENS][split, origin].add(lengths[0] - lengths[1])
                    found[SUM][split, origin].add(chosen - rejected)
                    found[MEAN][split, origin].add(chosen / lengths[0] - rejected / lengths[1])
            done(len(batch))
    return found, left_out


def as_json(rankings: Rankings) -> dict[str, Any]:
    """Split → origin → ranking → n, accuracy and interval."""
    found: dict[str, Any] = defaultdict(lambda: defaultdict(dict))
    for name, cells in rankings.items():
        for (split, origin), ranked in cells.items():
            found[split][origin][name] = {"n": sum(ranked.counts), **ranked.estimate()}
    return json.loads(json.dumps(found))


def reference_of(name: str) -> tuple[str, Path | None]:
    """`MODEL[:ADAPTER]` in parts. Raises `UserError` where the adapter is no folder."""
    model, colon, adapter = name.rpartition(":")
    if not colon:
        return name, None
    if not model or not Path(adapter).is_dir():
        raise UserError(f"--reference {name}: must be MODEL or MODEL:ADAPTER, the output folder of a recipe")
    return model, Path(adapter)
