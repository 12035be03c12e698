"""From answers to `scores.json`: metrics per item, baselines, intervals, and differences against the first model."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from instructrec.core.checks import satisfied, satisfied_loose
from instructrec.core.schema import Category, Estimate, Metric, Scores, Suite, Templates
from instructrec.evaluation.metrics import bleu, chrf, exact_match, rouge_l
from instructrec.evaluation.scoring import Answered
from instructrec.evaluation.statistics import macro_f1, macro_f1_difference, mean_with_interval, paired_difference
from instructrec.evaluation.suites import Item

LABELS = {
    "gold_nll": "gold NLL/token ↓",
    "rouge_l": "ROUGE-L ↑",
    "chrf": "chrF ↑",
    "bleu": "BLEU ↑",
    "exact_match": "exact match ↑",
    "accuracy": "choice accuracy ↑",
    "calibrated_accuracy": "calibrated accuracy ↑",
    "option_mass": "option mass ↑",
    "macro_f1": "macro-F1 ↑",
    "constraints": "constraints met ↑",
    "constraints_loose": "constraints met, loose ↑",
    "all_constraints": "all constraints met ↑",
    "all_constraints_loose": "all constraints met, loose ↑",
    "stop_rate": "stop rate ↑",
    "bits_per_byte": "bits per byte ↓",
}
"""Metric → how it is shown; the arrow points to better."""

SHARED_LABELS = 10
"""Items of a category with the same options, from which on these are labels: calibrated, and counted in macro-F1."""


def item_scores(item: Item, answered: Answered) -> dict[str, float]:
    """The metrics of one answer that need no other item.

    - `gold_nll`: nats per token of the gold answer, the end of turn not counted.
    - `bits_per_byte` (raw text): its bits per byte of UTF-8, which tokenizers of all kinds can be compared by.
    - `rouge_l`, `exact_match`, and without options `chrf`, `bleu`: of the greedy answer, best over the accepted ones.
    - `accuracy` (choice items): whether the option with the highest summed log-probability is accepted.
    - `option_mass` (choice items): the probability that the answer begins with one of the options.
    - `constraints`, `all_constraints`: the share of an item's checks that the answer meets, and whether it meets all;
      the loose forms forgive a first or last line too many and asterisks (IFEval; Zhou et al., 2023).
    - `stop_rate`: whether the answer ended within its limit.
    """
    scores: dict[str, float] = {}
    if answered.gold_logprob is not None and not item.messages:
        bytes_ = len(item.targets[0].encode())
        return {"bits_per_byte": -answered.gold_logprob / math.log(2) / bytes_}
    if answered.gold_logprob is not None:
        scores["gold_nll"] = -answered.gold_logprob / answered.gold_tokens
    if answered.output is not None and item.targets:
        scores["rouge_l"] = rouge_l(answered.output, item.targets)
        if item.choices is None:
            scores["chrf"] = chrf(answered.output, item.targets)
            scores["bleu"] = bleu(answered.output, item.targets)
        scores["exact_match"] = exact_match(answered.output, item.targets)
    if item.choices is not None and answered.choice_logprobs is not None:
        scores["accuracy"] = float(_likeliest(item, answered) in item.targets)
        scores["option_mass"] = min(1.0, sum(math.exp(value) for value in answered.choice_logprobs))
    if answered.output is not None and item.checks is not None:
        for suffix, met in (
            ("", satisfied(item.checks, answered.output)),
            ("_loose", satisfied_loose(item.checks, answered.output)),
        ):
            scores[f"constraints{suffix}"] = sum(met) / len(met)
            scores[f"all_constraints{suffix}"] = float(all(met))
    if answered.output is not None:
        scores["stop_rate"] = float(answered.stopped)
    return scores


def _likeliest(item: Item, answered: Answered) -> str:
    logprobs, choices = answered.choice_logprobs or (), item.choices or ()
    return max(zip(logprobs, choices, strict=True), key=lambda pair: pair[0])[1]


def label_sets(items: Sequence[Item]) -> list[list[int]]:
    """The items, by index, whose options are labels: `SHARED_LABELS` of a category, and more, have the same ones."""
    groups: dict[tuple[str, frozenset[str]], list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        if item.choices is not None:
            groups[item.category, frozenset(item.choices)].append(i)
    return [members for members in groups.values() if len(members) >= SHARED_LABELS]


def calibrated(items: Sequence[Item], answers: Sequence[Answered]) -> list[str]:
    """The label that each item's options gain most in, against their mean probability over all the items.

    A small model gives one label to everything; what it prefers whatever the question is taken out (batch calibration;
    Zhou et al., 2024). No label is looked at.
    """
    labels = sorted(items[0].choices or ())
    table = np.array(
        [
            [dict(zip(item.choices or (), answer.choice_logprobs or (), strict=True))[label] for label in labels]
            for item, answer in zip(items, answers, strict=True)
        ]
    )
    shares = np.exp(table - table.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return [labels[k] for k in (shares / shares.mean(axis=0)).argmax(axis=1)]


def _chance(items: Sequence[Item]) -> float:
    """The accuracy of guessing among the options."""
    return sum(len(set(item.targets)) / len(item.choices or ()) for item in items) / len(items)


def _majority(items: Sequence[Item]) -> float:
    """The share that is right when every item gets its category's most frequent answer, if that occurs at all twice."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        answers[item.category][item.targets[0]] += 1
    most = [counts.most_common(1)[0][1] for counts in answers.values()]
    return sum(count for count in most if count > 1) / len(items)


def _templates(items: Sequence[Item], values: Sequence[float]) -> Templates | None:
    """Median and quartiles of the means per wording, where there are two or more."""
    by_template: dict[str, list[float]] = defaultdict(list)
    for item, value in zip(items, values, strict=True):
        if item.template is not None:
            by_template[item.template].append(value)
    if len(by_template) < 2:
        return None
    low, median, high = np.percentile([np.mean(v) for v in by_template.values()], [25, 50, 75])
    return {"n": len(by_template), "median": float(median), "quartiles": [float(low), float(high)]}


def _metric(name: str, items: Sequence[Item], series: Mapping[str, Sequence[float]], seed: int) -> Metric:
    """One metric on the items that have it, from the values of each model."""
    reference = next(iter(series))
    values: dict[str, Estimate] = {}
    for model, numbers in series.items():
        values[model] = mean_with_interval(numbers, seed)
        if (spread := _templates(items, numbers)) is not None:
            values[model]["templates"] = spread
    choosing = name in ("accuracy", "calibrated_accuracy")
    return {
        "n": len(items),
        "majority": _majority(items) if choosing or name == "exact_match" else None,
        "chance": _chance(items) if choosing else None,
        "values": values,
        "deltas": {
            model: paired_difference(numbers, series[reference], seed)
            for model, numbers in series.items()
            if model != reference
        },
    }


def _metrics(
    items: Sequence[Item],
    scores: Mapping[str, Sequence[Mapping[str, float]]],
    chosen: Mapping[str, Sequence[str | None]],
    seed: int,
) -> dict[str, Metric]:
    """All metrics of some items: `scores` and `chosen` (the likeliest option) by model, in the items' order."""
    reference = next(iter(scores))
    metrics: dict[str, Metric] = {}
    for name in LABELS:
        having = [i for i, entry in enumerate(scores[reference]) if name in entry]
        if having:
            series = {model: [entries[i][name] for i in having] for model, entries in scores.items()}
            metrics[name] = _metric(name, [items[i] for i in having], series, seed)
        elif name == "macro_f1" and (groups := label_sets(items)):
            metrics[name] = _macro_f1(items, groups, chosen, seed)
    return metrics


def _macro_f1(
    items: Sequence[Item], groups: Sequence[Sequence[int]], chosen: Mapping[str, Sequence[str | None]], seed: int
) -> Metric:
    gold = [[items[i].targets[0] for i in group] for group in groups]
    guesses = {model: [[str(labels[i]) for i in group] for group in groups] for model, labels in chosen.items()}
    reference, *others = guesses
    return {
        "n": sum(map(len, groups)),
        "majority": macro_f1(gold, [[Counter(g).most_common(1)[0][0]] * len(g) for g in gold], seed)["value"],
        "chance": None,
        "values": {model: macro_f1(gold, labels, seed) for model, labels in guesses.items()},
        "deltas": {model: macro_f1_difference(gold, guesses[model], guesses[reference], seed) for model in others},
    }


def summarise(
    items: Mapping[str, Sequence[Item]],
    answers: Mapping[str, Mapping[str, Sequence[Answered]]],
    seed: int,
    overlaps: Mapping[str, Sequence[str | None]] | None = None,
    done: Callable[[], None] = lambda: None,
) -> tuple[Scores, dict[str, dict[str, list[dict[str, float]]]]]:
    """`scores.json`, and the per-item scores by model and suite.

    Args:
        items: suite → items.
        answers: model → suite → answers in the items' order; the first model is the reference of every difference.
        overlaps: suite → for every item how it overlaps with what a model was trained on, or null. A suite where some
            do and some do not is scored a second time without those that do, as `NAME, clean`.
        done: called after every suite.
    """
    models = list(answers)
    per_item: dict[str, dict[str, list[dict[str, float]]]] = {model: {} for model in models}
    suites: dict[str, Suite] = {}
    for suite, questions in items.items():
        chosen: dict[str, list[str | None]] = {}
        for model in models:
            given = answers[model][suite]
            scores = [item_scores(item, answer) for item, answer in zip(questions, given, strict=True)]
            for group in label_sets(questions):
                labels = calibrated([questions[i] for i in group], [given[i] for i in group])
                for i, label in zip(group, labels, strict=True):
                    scores[i]["calibrated_accuracy"] = float(label in questions[i].targets)
            per_item[model][suite] = scores
            chosen[model] = [
                _likeliest(item, answer) if item.choices else None
                for item, answer in zip(questions, given, strict=True)
            ]

        def scored(indices: Sequence[int], suite: str = suite, chosen: Mapping = chosen) -> dict[str, Metric]:
            return _metrics(
                [items[suite][i] for i in indices],
                {model: [per_item[model][suite][i] for i in indices] for model in models},
                {model: [chosen[model][i] for i in indices] for model in models},
                seed,
            )

        found = (overlaps or {}).get(suite)
        everything = list(range(len(questions)))
        clean = [i for i in everything if found is None or found[i] is None]
        for name, indices in ((suite, everything), (f"{suite}, clean", clean)):
            if name != suite and not 0 < len(clean) < len(everything):
                continue
            members: dict[str, list[int]] = defaultdict(list)
            for i in indices:
                members[questions[i].category].append(i)
            categories: dict[str, Category] = {}
            if len(members) > 1:
                categories = {c: {"n": len(own), "metrics": scored(own)} for c, own in members.items()}
            suites[name] = {
                "n": len(indices),
                "metrics": scored(indices),
                "categories": categories,
                "overlap": None if found is None else dict(Counter(str(found[i]) for i in indices if found[i])),
            }
        done()
    return {"models": models, "suites": suites}, per_item


def as_predictions(
    items: Mapping[str, Sequence[Item]],
    answers: Mapping[str, Mapping[str, Sequence[Answered]]],
    per_item: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]],
    overlaps: Mapping[str, Sequence[str | None]] | None = None,
) -> Iterator[dict[str, Any]]:
    """The lines of `predictions.jsonl`: for every item what each model saw, answered and scored."""
    for suite, questions in items.items():
        found = (overlaps or {}).get(suite)
        for i, item in enumerate(questions):
            for model in answers:
                answer, scores = answers[model][suite][i], per_item[model][suite][i]
                yield {
                    "suite": suite,
                    "id": item.id,
                    "category": item.category,
                    "template": item.template,
                    "model": model,
                    "prompt": answer.prompt,
                    "prompt_ids": answer.prompt_ids,
                    "targets": item.targets,
                    "choices": item.choices,
                    "checks": item.checks,
                    "output": answer.output,
                    "output_ids": answer.output_ids,
                    "stopped": answer.stopped,
                    "gold_nll": scores.get("gold_nll"),
                    "choice_logprobs": answer.choice_logprobs,
                    "scores": scores,
                    "overlap": found[i] if found else None,
                }
