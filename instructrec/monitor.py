"""A watch over training against a reward: what is rewarded may rise while what is wanted falls."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WORSE = {"eval_gold_nll": 0.05, "eval_rouge_l": -0.03, "eval_accuracy": -0.05, "eval_stop_rate": -0.05}
"""Held-out metric → the change from its best value on that counts as worse: with a few dozen items less is noise."""


class RewardWatch(TrainerCallback):
    """Warns after an evaluation if a reward has risen since a held-out metric was at its best, and that is now worse.

    That is how a reward that is gamed looks (Gao et al., 2023, https://arxiv.org/abs/2210.10760). What is compared is
    read from the trainer's log, so that a resumed run warns as an undisturbed one does. It must be given after the
    callback that adds the held-out metrics.

    Args:
        rewards: keys of the log that training drives up.
        worse: key of the log that it must not spoil → the change that counts, negative where lower is worse.
    """

    def __init__(self, rewards: Sequence[str], worse: Mapping[str, float] = WORSE) -> None:
        self.rewards, self.worse = tuple(rewards), dict(worse)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Print a line to stderr for each metric that is worse."""
        if state.is_world_process_zero:
            for warning in warnings(state.log_history, self.rewards, self.worse):
                print(f"warning: {warning}", file=sys.stderr, flush=True)


def warnings(history: Sequence[Mapping[str, Any]], rewards: Sequence[str], worse: Mapping[str, float]) -> list[str]:
    """What the last evaluation of a trainer's log gives cause to warn of, one line for each held-out metric."""
    seen: dict[int, dict[str, Any]] = {}
    first: dict[str, Any] = {}
    latest: dict[str, Any] = {}
    for entry in history:
        entry = {key: value for key, value in entry.items() if value is not None}  # a reward that applied to nothing
        first = {**entry, **first}
        latest = {**latest, **entry}
        if worse.keys() & entry.keys():
            seen[latest["step"]] = latest
    if not seen:
        return []
    now, found = list(seen.values())[-1], []
    for metric, change in worse.items():
        having = [one for one in seen.values() if metric in one]
        if not having or metric not in now:
            continue
        sign = 1 if change > 0 else -1
        best = min(having, key=lambda one: sign * one[metric])
        if sign * (now[metric] - best[metric]) <= abs(change):
            continue
        best = first | best  # at the start there may be no reward yet
        risen = [key for key in rewards if key in now and now[key] > best[key]]
        if risen:
            rises = ", ".join(f"{_name(key)} rose from {best[key]:.3f} to {now[key]:.3f}" for key in risen)
            found.append(
                f"since step {best['step']} {rises}, while held-out {_name(metric)} went from {best[metric]:.3f} to "
                f"{now[metric]:.3f}: the reward is learnt at the cost of what it stands for; use an earlier "
                "checkpoint, fewer steps, a lower --learning_rate or a higher --beta"
            )
    return found


def _name(key: str) -> str:
    return key.removeprefix("eval_")
