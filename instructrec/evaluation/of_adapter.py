"""Which evaluation is an adapter's, and what of it is about that adapter."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.core.schema import Lineage, Scores
from instructrec.lineage import read_lineage

DEFAULT = "eval"
"""The folder beside an adapter in which recipes are told to score it."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluation of one adapter against its base.

    Attributes:
        scores: of these two, under their published names.
        settings: the arguments of recipes/evaluate.py.
    """

    scores: Scores
    settings: dict[str, Any]


def evaluation_of(adapter: Path, lineage: Lineage, folder: Path | None, base: str, published: str) -> Evaluated | None:
    """The evaluation in `folder`, by default the adapter's sibling `eval`, if it scored these weights on this base.

    Args:
        lineage: the adapter's.
        base, published: names under which base and adapter are published.

    Raises:
        UserError: `folder` was given and holds no evaluation, or one of other weights. The sibling is passed over.
    """
    where = folder or adapter.resolve().parent / DEFAULT
    key, record = None, read_lineage(where)
    if record is not None and record["stage"] == "evaluate":
        adapters = record["inputs"]["adapters"]
        key = next((name for name, one in adapters.items() if one["sha256"] == lineage["inputs"]["output"]), None)
    if record is None or key is None:
        if folder is None:
            return None
        other = record is None or record["stage"] != "evaluate"
        fault = "holds no evaluation" if other else "scored other weights than this adapter's"
        raise UserError(f"--evaluation {folder}: {fault}; score it with recipes/evaluate.py --adapter {adapter}")
    if record["inputs"]["model"]["sha256"] != lineage["inputs"]["model"]["sha256"]:
        raise UserError(f"{where}: scored the adapter on another base than it was trained on; score it again")
    try:
        scores = json.loads((where / "scores.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{where}/scores.json: not readable ({error}); score the adapter again") from None
    return Evaluated(_only(scores, {scores["models"][0]: base, key: published}), record["config"])


def _only(scores: Scores, names: dict[str, str]) -> Scores:
    """The scores of some models, renamed; differences are against the first in any case."""

    def named(estimates: dict[str, Any]) -> dict[str, Any]:
        return {new: estimates[old] for old, new in names.items() if old in estimates}

    def metrics(found: dict[str, Any]) -> dict[str, Any]:
        return {
            name: metric | {"values": named(metric["values"]), "deltas": named(metric["deltas"])}
            for name, metric in found.items()
        }

    suites: dict[str, Any] = {}
    for name, suite in scores["suites"].items():
        categories = {
            category: entry | {"metrics": metrics(dict(entry["metrics"]))}
            for category, entry in suite["categories"].items()
        }
        suites[name] = suite | {"metrics": metrics(dict(suite["metrics"])), "categories": categories}
    return {"models": list(names.values()), "suites": suites}
