"""`instructrec compare`: what may be claimed about the difference between evaluated models, and what may not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructrec.core.errors import UserError
from instructrec.evaluation.results import LABELS
from instructrec.evaluation.statistics import Comparison, compare_clustered, holm

LEVEL = 0.05

METRICS = tuple(name for name in LABELS if name != "macro_f1")
"""Those that an item has by itself."""

Key = tuple[str, str]
"""Suite and id of an item."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a model in one evaluation, or one per training seed in several.

    Attributes:
        label: as given on the command line.
        runs: for each seed, the item's category and scores.
    """

    label: str
    runs: tuple[dict[Key, tuple[str, dict[str, float]]], ...]

    def keys(self) -> set[Key]:
        """The items that every run has."""
        return set.intersection(*(set(run) for run in self.runs))


@dataclass(frozen=True)
class Finding:
    """One comparison: of `arm` with `reference` on one suite and metric; `p` is adjusted for all comparisons made."""

    reference: str
    arm: str
    suite: str
    metric: str
    result: Comparison
    p: float

    @property
    def shown(self) -> bool:
        """Whether the difference may be claimed: the adjusted p and the interval agree."""
        interval = self.result.ci95
        return self.p < LEVEL and interval is not None and (interval[0] > 0 or interval[1] < 0)

    def sentence(self) -> str:
        """What may be claimed and what not."""
        result, label = self.result, LABELS[self.metric]
        where = f"on {self.suite}, {label}: "
        interval = "" if result.ci95 is None else f" [{result.ci95[0]:+.3f}, {result.ci95[1]:+.3f}]"
        figures = f"{result.value:+.3f}{interval}, p = {self.p:.3g}, {result.items} items in {result.groups} groups"
        if not self.shown:
            more = "" if result.needed is None else f"; half of it would take about {result.needed:,} items to see"
            return f"{where}no difference may be claimed between {self.arm} and {self.reference} ({figures}){more}"
        better = (result.value < 0) == label.endswith("↓")
        scope = (
            f"for {result.seeds} training seeds"
            if result.seeds > 1
            else "for these two models alone, not for how they were trained: there is one training seed"
        )
        return f"{where}{self.arm} is {'better' if better else 'worse'} than {self.reference} ({figures}), {scope}"


def load_arm(text: str) -> Arm:
    """Read `FOLDER[:MODEL]`, or several of them joined by commas: one per training seed.

    Without a model it is the last one of the folder's scores: the adapter, where a base and an adapter were scored.

    Raises:
        UserError: no evaluation is there, or it has no such model.
    """
    runs = []
    for part in text.split(","):
        name, _, model = part.partition(":")
        folder = Path(name)
        try:
            models = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["models"]
            lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
            items = [(p["model"], (p["suite"], p["id"]), (p["category"], p["scores"])) for p in map(json.loads, lines)]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{name}: no finished evaluation; give the --output_dir of recipes/evaluate.py") from None
        model = model or models[-1]
        if model not in models:
            raise UserError(f"{name}: has no model {model!r}, but {', '.join(map(repr, models))}")
        runs.append({key: entry for name, key, entry in items if name == model})
    return Arm(text, tuple(runs))


def compare(arms: Sequence[Arm], metrics: Sequence[str], seed: int = 0) -> list[Finding]:
    """Every arm against the first one, on every suite and metric, with p adjusted by Holm over all of them.

    Raises:
        UserError: two arms have no item in common, or different numbers of seeds.
    """
    reference, *others = arms
    results: list[tuple[Arm, str, str, Comparison]] = []
    for arm in others:
        if len(arm.runs) != len(reference.runs):
            raise UserError(
                f"{arm.label}: has {len(arm.runs)} runs, {reference.label} has {len(reference.runs)}; give one per seed"
            )
        common = sorted(arm.keys() & reference.keys())
        if not common:
            raise UserError(f"{arm.label} and {reference.label}: have no item in common; score them on the same suites")
        for suite in dict.fromkeys(key[0] for key in common):
            for metric in metrics:
                keys = [key for key in common if key[0] == suite and metric in reference.runs[0][key][1]]
                if keys:
                    results.append((arm, suite, metric, _paired(arm, reference, keys, metric, seed)))
    adjusted = holm([result.p for *_, result in results])
    return [
        Finding(reference.label, arm.label, suite, metric, result, p)
        for (arm, suite, metric, result), p in zip(results, adjusted, strict=True)
    ]


def _paired(arm: Arm, reference: Arm, keys: Sequence[Key], metric: str, seed: int) -> Comparison:
    values, others = ([[run[key][1][metric] for key in keys] for run in side.runs] for side in (arm, reference))
    return compare_clustered(values, others, [reference.runs[0][key][0] for key in keys], seed)


def warnings(findings: Sequence[Finding]) -> Iterator[str]:
    """Where no result could have been significant, whatever the models do."""
    for suite in dict.fromkeys(finding.suite for finding in findings):
        groups = max(finding.result.groups for finding in findings if finding.suite == suite)
        if (least := 2 / 2**groups) * len(findings) > LEVEL:
            yield (
                f"{suite}: {groups} groups of items cannot give p below 2/2^{groups} = {least:.2g}, and "
                f"{len(findings)} comparisons are made: nothing can be significant here. Score more families, or ask "
                "fewer questions with --metric and fewer runs"
            )


def as_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as plain values."""
    return [
        {
            "reference": finding.reference,
            "arm": finding.arm,
            "suite": finding.suite,
            "metric": finding.metric,
            "difference": finding.result.value,
            "ci95": finding.result.ci95,
            "p": finding.result.p,
            "p_holm": finding.p,
            "items": finding.result.items,
            "groups": finding.result.groups,
            "seeds": finding.result.seeds,
            "items_needed_for_half": finding.result.needed,
        }
        for finding in findings
    ]
