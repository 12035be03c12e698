"""How often a model ranks a pair's chosen answer above the rejected one, beside rankings that know nothing new.

A ranking scores both answers of a pair; it is right (1), wrong (0) or, on a tie, half right. Intervals resample
documents, because the pairs of one document are alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from instructrec.evaluation.scoring import Scorer
from instructrec.evaluation.statistics import compare_clustered, mean_with_interval
from instructrec.evaluation.suites import Item
from instructrec.preflight import SIDES

Pair = Mapping[str, Any]
"""A row of `instructrec.core.schema.PAIR`."""

Scores = Sequence[tuple[float, float]]
"""For each pair the score of its chosen answer and of its rejected one."""

LENGTH, LIKELIHOOD, PER_TOKEN = "length", "likelihood", "likelihood_per_token"
IMPLICIT, REWARD = "implicit_reward", "reward"
"""Rankings: by tokens (longer or shorter, whichever is right more often on these pairs); by the reference's summed or
mean log-probability; by the policy's log-probability against the reference's (DPO's implicit reward; Rafailov et al.,
2023, https://arxiv.org/abs/2305.18290, section 4); by a reward model."""


@dataclass(frozen=True)
class Likelihoods:
    """Summed log-probabilities of the two answers of a pair, without the end of turn, and how many tokens they are."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int


def rank_with_policy(model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_size: int = 8) -> dict[str, Any]:
    """Rank pairs with a model that DPO has trained, and with what it started from; every process calls this.

    Args:
        model: a PEFT model whose active adapter is the policy; its adapter `ref`, else its base, is the reference.
        tokenizer: with the chat template of the run.
        pairs: rows.
        batch_size: prompts encoded together.

    Returns:
        `summarise` of the rankings, and `gold_nll`: nats per token of the chosen answers `before` and `after`, each
        answer to a prompt once, and the `rise` with its interval.
    """
    model.eval()
    after = likelihoods(model, tokenizer, pairs, batch_size)
    with _reference(model):
        before = likelihoods(model, tokenizer, pairs, batch_size)
    implicit = [(a.chosen - b.chosen, a.rejected - b.rejected) for a, b in zip(after, before, strict=True)]
    found = summarise({IMPLICIT: implicit, **_simple(before)}, IMPLICIT, pairs)
    once = {(pair["prompt"][-1]["content"], pair["chosen"][0]["content"]): i for i, pair in enumerate(pairs)}
    groups = [_document(pairs[i]) for i in once.values()]
    nll = [[-one[i].chosen / one[i].chosen_tokens for i in once.values()] for one in (before, after)]
    found["gold_nll"] = {
        "before": float(np.mean(nll[0])),
        "after": float(np.mean(nll[1])),
        "rise": _mean([b - a for a, b in zip(*nll, strict=True)], groups, math.inf),
    }
    return found


def rank_with_reward_model(model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_size: int = 8) -> dict[str, Any]:
    """Rank pairs with a reward model (a sequence classifier with one output); every process calls this."""
    model.eval()
    rewards = _rewards(model, tokenizer, pairs, batch_size)
    tokens = [tuple(len(_ids(tokenizer, pair[side][0]["content"])) for side in SIDES) for pair in pairs]
    return summarise({REWARD: rewards, LENGTH: _by_length(tokens)}, REWARD, pairs)


def likelihoods(model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_size: int = 8) -> list[Likelihoods]:
    """The likelihoods of pairs under whatever adapter is active; processes share the pairs."""
    state = PartialState()
    mine = list(range(len(pairs)))[state.process_index :: state.num_processes]
    answers = [tuple(pairs[i][side][0]["content"] for side in SIDES) for i in mine]
    items = [
        Item(str(i), pairs[i]["origin"], tuple(pairs[i]["prompt"]), both[:1], both)
        for i, both in zip(mine, answers, strict=True)
    ]
    scored = Scorer(model, tokenizer, batch_size).score(items, [0] * len(items))
    own = [
        (
            i,
            Likelihoods(
                *cast(tuple[float, float], one.choice_logprobs), *(len(_ids(tokenizer, text)) for text in both)
            ),
        )
        for i, both, one in zip(mine, answers, scored, strict=True)
    ]
    return [one for _, one in sorted(gather_object(own), key=lambda pair: pair[0])]


def summarise(rankings: Mapping[str, Scores], new: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    """How often rankings are right.

    Args:
        rankings: name → scores of all pairs.
        new: the ranking that the others are compared with.
        pairs: rows.

    Returns:
        `pairs`, how many; `accuracy`, name → value and 95 % interval; `better_by`, name of another → by how much the
        new one is right more often, with its interval; `origins`, origin of pairs → `pairs` and `accuracy` (values).
    """
    groups = [_document(pair) for pair in pairs]
    right = {name: [_right(*scores) for scores in found] for name, found in rankings.items()}
    origins: dict[str, Any] = {}
    for origin in sorted({pair["origin"] for pair in pairs}):
        its = [i for i, pair in enumerate(pairs) if pair["origin"] == origin]
        means = {name: float(np.mean([values[i] for i in its])) for name, values in right.items()}
        origins[origin] = {"pairs": len(its), "accuracy": means}
    return {
        "pairs": len(pairs),
        "accuracy": {name: _mean(values, groups) for name, values in right.items()},
        "better_by": {
            name: _mean([a - b for a, b in zip(right[new], values, strict=True)], groups)
            for name, values in right.items()
            if name != new
        },
        "origins": origins,
    }


def as_lines(split: str, found: Mapping[str, Any]) -> Iterator[str]:
    """What `rank_with_policy` or `rank_with_reward_model` found, for a terminal."""
    accuracies = ", ".join(f"{name} {_shown(one)}" for name, one in found["accuracy"].items())
    yield f"{split}: {found['pairs']:,} pairs, ranked right: {accuracies}"
    for name, one in found["better_by"].items():
        yield f"  better than {name} by {100 * one['value']:+.1f} points {_shown(one, 100)}"
    if "gold_nll" in found:
        nll = found["gold_nll"]
        yield f"  gold NLL {nll['before']:.3f} → {nll['after']:.3f} ({_shown(nll['rise'])})"


def _shown(one: Mapping[str, Any], scale: float = 1) -> str:
    low, high = one["ci95"]
    interval = "" if low is None else f"[{scale * low:.3g}, {scale * high:.3g}]"
    return interval if scale != 1 else f"{one['value']:.3f} {interval}".strip()


def _simple(reference: Sequence[Likelihoods]) -> dict[str, Scores]:
    return {
        LIKELIHOOD: [(one.chosen, one.rejected) for one in reference],
        PER_TOKEN: [(one.chosen / one.chosen_tokens, one.rejected / one.rejected_tokens) for one in reference],
        LENGTH: _by_length([(one.chosen_tokens, one.rejected_tokens) for one in reference]),
    }


def _by_length(tokens: Sequence[tuple[int, ...]]) -> Scores:
    longer = sum(_right(*pair) for pair in tokens) >= len(tokens) / 2
    sign = 1 if longer else -1
    return [(sign * chosen, sign * rejected) for chosen, rejected in tokens]


def _right(chosen: float, rejected: float) -> float:
    return 0.5 if chosen == rejected else float(chosen > rejected)


def _document(pair: Pair) -> str:
    return pair["source"][0]["sha256"] if pair["source"] else pair["prompt"][-1]["content"]


def _mean(values: Sequence[float], groups: Sequence[str], most: float = 1.0) -> dict[str, Any]:
    """A mean and its interval over documents; over pairs where there is one document only.

    Few documents give an interval that reaches beyond what a mean of these values can be, which is `most`, or `most`
    below 0; it is cut there.
    """
    if len(set(groups)) < 2:
        return dict(mean_with_interval(values))
    found = compare_clustered([values], [[0.0] * len(values)], groups)
    least = 0.0 if min(values) >= 0 and most == 1 else -most
    return {"value": found.value, "ci95": [min(max(bound, least), most) for bound in found.ci95 or ()]}


@contextmanager
def _reference(model: Any) -> Iterator[None]:
    from trl.trainer.utils import use_adapter

    with use_adapter(model, "ref" if "ref" in model.peft_config else None):
        yield


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _rewards(model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_size: int) -> list[tuple[float, float]]:
    """What a reward model gives the two answers of each pair; processes share the sequences."""
    import torch

    state = PartialState()
    asked = [list(pair["prompt"]) + list(pair[side]) for pair in pairs for side in SIDES]
    ids = tokenizer.apply_chat_template(asked, return_dict=True)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))[state.process_index :: state.num_processes]
    own = []
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        padded = tokenizer.pad({"input_ids": [ids[i] for i in part]}, padding_side="right", return_tensors="pt")
        with torch.inference_mode():
            logits = model(**padded.to(model.device), use_cache=False).logits
        own += list(zip(part, logits.float().flatten().tolist(), strict=True))
    rewards = [value for _, value in sorted(gather_object(own))]
    return list(zip(rewards[::2], rewards[1::2], strict=True))
