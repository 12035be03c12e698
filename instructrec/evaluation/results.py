"""From answers to `scores.json`: metrics per item, baselines, intervals, and differences against the first model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from instructrec.core.schema import Metric, Scores, Suite
from instructrec.evaluation.metrics import exact_match, rouge_l
from instructrec.evaluation.scoring import Answered
from instructrec.evaluation.statistics import mean_with_interval, paired_difference
from instructrec.evaluation.suites import Item

LABELS = {
    "gold_nll": "gold NLL/token ↓",
    "rouge_l": "ROUGE-L ↑",
    "exact_match": "exact match ↑",
    "accuracy": "choice accuracy ↑",
    "option_mass": "option mass ↑",
}
"""Metric → how it is shown; the arrow points to better."""

CHOICE_ONLY = ("accuracy", "option_mass")


def item_scores(item: Item, answered: Answered) -> dict[str, float]:
    """The metrics of one answer.

    - `gold_nll`: nats per token of the gold answer, the end of turn not counted.
    - `rouge_l`, `exact_match`: of the greedy answer, best over the accepted ones.
    - `accuracy` (choice items): whether the option with the highest summed log-probability is accepted.
    - `option_mass` (choice items): the probability that the answer begins with one of the options.
    """
    scores = {
        "gold_nll": -answered.gold_logprob / answered.gold_tokens,
        "rouge_l": rouge_l(answered.output, item.targets),
        "exact_match": exact_match(answered.output, item.targets),
    }
    if item.choices is not None and answered.choice_logprobs is not None:
        best = max(zip(answered.choice_logprobs, item.choices, strict=True), key=lambda pair: pair[0])[1]
        scores["accuracy"] = float(best in item.targets)
        scores["option_mass"] = min(1.0, sum(math.exp(value) for value in answered.choice_logprobs))
    return scores


def _chance(items: Sequence[Item]) -> float:
    """The accuracy of guessing among the options."""
    return sum(len(set(item.targets)) / len(item.choices or ()) for item in items) / len(items)


def _majority(items: Sequence[Item]) -> float:
    """The share of the most frequent accepted answer."""
    return Counter(item.targets[0] for item in items).most_common(1)[0][1] / len(items)


def summarise(
    items: Mapping[str, Sequence[Item]], answers: Mapping[str, Mapping[str, Sequence[Answered]]], seed: int
) -> tuple[Scores, dict[str, dict[str, list[dict[str, float]]]]]:
    """`scores.json`, and the per-item scores by model and suite.

    Args:
        items: suite → items.
        answers: model → suite → answers in the items' order; the first model is the reference of every difference.
    """
    models = list(answers)
    per_item = {
        model: {
            suite: [item_scores(item, answer) for item, answer in zip(items[suite], answers[model][suite], strict=True)]
            for suite in items
        }
        for model in models
    }
    suites: dict[str, Suite] = {}
    for suite, questions in items.items():
        metrics: dict[str, Metric] = {}
        choice_items = [item for item in questions if item.choices is not None]
        for name in LABELS:
            series = {model: [scores[name] for scores in per_item[model][suite] if name in scores] for model in models}
            if not series[models[0]]:
                continue
            asked = choice_items if name in CHOICE_ONLY else list(questions)
            metrics[name] = {
                "n": len(asked),
                "majority": _majority(asked) if name in ("accuracy", "exact_match") else None,
                "chance": _chance(asked) if name == "accuracy" else None,
                "values": {model: mean_with_interval(values, seed) for model, values in series.items()},
                "deltas": {model: paired_difference(series[model], series[models[0]], seed) for model in models[1:]},
            }
        suites[suite] = {"n": len(questions), "metrics": metrics}
    return {"models": models, "suites": suites}, per_item
