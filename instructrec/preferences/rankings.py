"""How often rankings put a pair's chosen answer above the rejected one; the ranking by length, which needs no model.

A ranking scores both answers of a pair; it is right (1), wrong (0) or, on a tie, half right. What a preference model is
worth is what it has above the rankings that know nothing new. Intervals resample documents, because the pairs of one
document are alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from instructrec.evaluation.statistics import clustered_mean
from instructrec.preferences.write import prompt_key

Pair = Mapping[str, Any]
"""A row of `instructrec.core.schema.PAIR` with its `name`, as `read_pairs` gives it."""

Scores = Sequence[tuple[float, float]]
"""For each pair the score of its chosen answer and of its rejected one."""

Where = tuple[str, str]
"""Of a pair: its origin, and the document that it is from."""

LENGTH, TOKENS, LIKELIHOOD, PER_TOKEN = "length", "tokens", "likelihood", "likelihood_per_token"
IMPLICIT, REWARD = "implicit_reward", "reward"
"""Rankings: by characters or tokens; by the reference's summed or mean log-probability; by the policy's log-probability
against the reference's (DPO's implicit reward; Rafailov et al., 2023, https://arxiv.org/abs/2305.18290, section 4); by
a reward model."""

BY_SIZE = (LENGTH, TOKENS)
"""Of these more or less is better, whichever is right more often on the pairs that are summed up."""


def rank_by_length(pairs: Iterable[Pair]) -> dict[str, Any]:
    """`summarise` of the ranking by characters. Pairs may be many: of each only its lengths are held."""
    lengths: list[tuple[int, int]] = []
    where: list[Where] = []
    for pair in pairs:
        lengths.append(characters(pair))
        where.append(where_of(pair))
    return summarise({LENGTH: lengths}, where)


def summarise(rankings: Mapping[str, Scores], where: Sequence[Where], new: str | None = None) -> dict[str, Any]:
    """How often rankings are right.

    Args:
        rankings: name → scores of all pairs.
        where: of all pairs.
        new: the ranking that the others are compared with.

    Returns:
        `pairs`, how many; `accuracy`, name → value and 95 % interval; `better_by`, name of another → by how much the
        new one is right more often, with its interval; `origins`, origin of pairs → `pairs` and `accuracy`.
    """
    documents = [document for _, document in where]
    verdicts = {name: [_right(*scores) for scores in found] for name, found in rankings.items()}

    def right(name: str, places: Sequence[int]) -> list[float]:
        values = [verdicts[name][i] for i in places]
        turned = name in BY_SIZE and sum(values) < len(values) / 2
        return [1 - value for value in values] if turned else values

    def accuracies(places: Sequence[int]) -> dict[str, Any]:
        groups = [documents[i] for i in places]
        return {name: mean(right(name, places), groups, 0, 1) for name in rankings if places}

    every = range(len(where))
    origins: dict[str, Any] = {}
    for origin in sorted({origin for origin, _ in where}):
        places = [i for i in every if where[i][0] == origin]
        origins[origin] = {"pairs": len(places), "accuracy": accuracies(places)}
    return {
        "pairs": len(where),
        "accuracy": accuracies(every),
        "better_by": {
            name: mean([a - b for a, b in zip(right(new, every), right(name, every), strict=True)], documents, -1, 1)
            for name in rankings
            if new is not None and name != new and where
        },
        "origins": origins,
    }


def where_of(pair: Pair) -> Where:
    """A pair without a source counts as of the document that its prompt is."""
    document = pair["source"][0]["sha256"] if pair["source"] else str(prompt_key(pair["prompt"]))
    return pair["origin"], document


def characters(pair: Pair) -> tuple[int, int]:
    """Of the chosen answer and of the rejected one."""
    return len(pair["chosen"][0]["content"]), len(pair["rejected"][0]["content"])


def mean(values: Sequence[float], documents: Sequence[str], least: float, most: float) -> dict[str, Any]:
    """A mean and its interval over documents, cut where no mean can be: few documents give one that reaches beyond."""
    found = clustered_mean(values, documents)
    bounds = [bound if bound is None else min(max(bound, least), most) for bound in found["ci95"]]
    return {"value": found["value"], "ci95": bounds}


def as_lines(split: str, found: Mapping[str, Any]) -> Iterator[str]:
    """What `rank_with_policy` or `rank_with_reward_model` found, for a terminal."""
    accuracies = ", ".join(f"{name} {_shown(one)}" for name, one in found["accuracy"].items())
    left_out = f" ({found['too_long']:,} more do not fit the context)" if found.get("too_long") else ""
    yield f"{split}: {found['pairs']:,} pairs{left_out}, ranked right: {accuracies or 'none'}"
    for name, one in found["better_by"].items():
        yield f"  better than {name} by {100 * one['value']:+.1f} points {_interval(one, 100)}"
    if "gold_nll" in found:
        nll = found["gold_nll"]
        yield f"  gold NLL {nll['before']:.3f} → {nll['after']:.3f} ({_shown(nll['rise'])})"


def _right(chosen: float, rejected: float) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)


def _shown(one: Mapping[str, Any]) -> str:
    """A value and its interval."""
    return f"{one['value']:.3f} {_interval(one)}".strip()


def _interval(one: Mapping[str, Any], scale: float = 1) -> str:
    low, high = one["ci95"]
    return "" if low is None else f"[{scale * low:.3g}, {scale * high:.3g}]"
