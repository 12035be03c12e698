"""Rankings that ask a model: by likelihood, by what DPO has changed of it, by a reward model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from instructrec.adapters import reference
from instructrec.core.schema import SIDES
from instructrec.evaluation.scoring import Scorer
from instructrec.evaluation.suites import Item
from instructrec.preferences.rankings import (
    IMPLICIT,
    LENGTH,
    LIKELIHOOD,
    PER_TOKEN,
    REWARD,
    TOKENS,
    Pair,
    Scores,
    characters,
    mean,
    summarise,
    where_of,
)
from instructrec.preferences.write import prompt_key
from instructrec.rewards.model import rewards_of

Done = Callable[[int], None]
"""Called with a number of pairs whenever so many more have their likelihoods, or are left out."""


@dataclass(frozen=True)
class Likelihoods:
    """Summed log-probabilities of the two answers of a pair, without the end of turn, and how many tokens they are."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int


def rank_with_reference(
    model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_size: int = 8, done: Done = lambda _: None
) -> dict[str, Any]:
    """Rank pairs by length and by the likelihood of a model that has learnt from none; every process calls this.

    Returns:
        `summarise` of the rankings, and `too_long`: pairs that are left out, for they do not fit the model's context.
    """
    fitting = _fitting(model, tokenizer, pairs)
    done(len(pairs) - len(fitting))
    found = _by_reference(fitting, likelihoods(model, tokenizer, fitting, batch_size, done))
    return summarise(found, [where_of(pair) for pair in fitting]) | {"too_long": len(pairs) - len(fitting)}


def rank_with_policy(
    model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_size: int = 8, done: Done = lambda _: None
) -> dict[str, Any]:
    """Rank pairs with a model that DPO has trained, and with what it started from; every process calls this.

    Args:
        model: a PEFT model whose active adapter is the policy; its adapter `ref`, else its base, is the reference.
        tokenizer: with the chat template of the run.
        pairs: rows.
        batch_size: prompts encoded together.
        done: told of every pair twice.

    Returns:
        As `rank_with_reference`, with the implicit reward and by how much it is better; and `gold_nll`: nats per token
        of the chosen answers `before` and `after`, each answer to a prompt once, and the `rise` with its interval.
    """
    model.eval()
    fitting = _fitting(model, tokenizer, pairs)
    done(2 * (len(pairs) - len(fitting)))
    after = likelihoods(model, tokenizer, fitting, batch_size, done)
    with reference(model):
        before = likelihoods(model, tokenizer, fitting, batch_size, done)
    implicit = [(a.chosen - b.chosen, a.rejected - b.rejected) for a, b in zip(after, before, strict=True)]
    where = [where_of(pair) for pair in fitting]
    found = summarise({IMPLICIT: implicit, **_by_reference(fitting, before)}, where, IMPLICIT)
    found["too_long"] = len(pairs) - len(fitting)
    if fitting:
        once = {(prompt_key(pair["prompt"]), pair["chosen"][0]["content"]): i for i, pair in enumerate(fitting)}
        nll = [[-one[i].chosen / one[i].chosen_tokens for i in once.values()] for one in (before, after)]
        rises = [b - a for a, b in zip(*nll, strict=True)]
        found["gold_nll"] = {
            "before": float(np.mean(nll[0])),
            "after": float(np.mean(nll[1])),
            "rise": mean(rises, [where[i][1] for i in once.values()], -math.inf, math.inf),
        }
    return found


def rank_with_reward_model(model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_size: int = 8) -> dict[str, Any]:
    """Rank pairs with a reward model (a sequence classifier with one output); every process calls this.

    Returns:
        `summarise` of its ranking beside those by length.
    """
    model.eval()
    state = PartialState()
    mine = list(range(len(pairs)))[state.process_index :: state.num_processes]
    asked = [list(pairs[i]["prompt"]) + list(pairs[i][side]) for i in mine for side in SIDES]
    values = rewards_of(model, tokenizer, asked, batch_size)
    own = list(zip(mine, zip(values[::2], values[1::2], strict=True), strict=True))
    rankings = {REWARD: [scores for _, scores in sorted(gather_object(own))], **_by_lengths(tokenizer, pairs)}
    return summarise(rankings, [where_of(pair) for pair in pairs], REWARD)


def likelihoods(
    model: Any, tokenizer: Any, pairs: Sequence[Pair], batch_size: int, done: Done = lambda _: None
) -> list[Likelihoods]:
    """The likelihoods of pairs under whatever adapter is active; processes share the pairs.

    Raises:
        UserError: a pair does not fit the model's context.
    """
    state = PartialState()
    mine = list(range(len(pairs)))[state.process_index :: state.num_processes]
    items = [_item(pairs[i]) for i in mine]
    own = []
    for batch in Scorer(model, tokenizer, batch_size).batches(items, [0] * len(items)):
        for place, answered in batch:
            pair = pairs[mine[place]]
            sums = cast(tuple[float, float], answered.choice_logprobs)
            own.append((mine[place], Likelihoods(*sums, *_tokens(tokenizer, pair))))
        done(len(batch))
    return [one for _, one in sorted(gather_object(own), key=lambda entry: entry[0])]


def _by_reference(pairs: Sequence[Pair], reference: Sequence[Likelihoods]) -> dict[str, Scores]:
    return {
        LIKELIHOOD: [(one.chosen, one.rejected) for one in reference],
        PER_TOKEN: [(one.chosen / one.chosen_tokens, one.rejected / one.rejected_tokens) for one in reference],
        LENGTH: [characters(pair) for pair in pairs],
        TOKENS: [(one.chosen_tokens, one.rejected_tokens) for one in reference],
    }


def _by_lengths(tokenizer: Any, pairs: Sequence[Pair]) -> dict[str, Scores]:
    return {
        LENGTH: [characters(pair) for pair in pairs],
        TOKENS: [_tokens(tokenizer, pair) for pair in pairs],
    }


def _item(pair: Pair) -> Item:
    answers = tuple(pair[side][0]["content"] for side in SIDES)
    return Item(pair["name"], pair["origin"], tuple(pair["prompt"]), answers[:1], answers)


def _tokens(tokenizer: Any, pair: Pair) -> tuple[int, int]:
    chosen, rejected = (len(_ids(tokenizer, pair[side][0]["content"])) for side in SIDES)
    return chosen, rejected


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _fitting(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs whose prompt fits the model's context with either answer."""
    scorer = Scorer(model, tokenizer, 1)
    return [
        pair
        for pair in pairs
        if not scorer.context
        or len(_ids(tokenizer, scorer.render(_item(pair)))) + max(_tokens(tokenizer, pair)) <= scorer.context
    ]
